"""QM9: molecules by hand, torch-geometric's own processing as an oracle, the paper's split, the cache."""

import hashlib
import os
import pickle
import shutil
import sys
import zlib
from itertools import islice, pairwise

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mtl_core.datasets import qm9
from mtl_core.datasets.base import DataNotFound
from mtl_core.datasets.qm9 import HARTREE, PROPERTIES, QM9, TARGETS, WAYS, Arrays, UnreadableMolecule, graph

CPU = torch.device("cpu")
FEW = 260  # molecules from the top of the list, up to six heavy atoms, benzene among them
BENZENE = 208  # place in torch-geometric's order


@pytest.fixture(scope="module")
def few():
    return list(islice(qm9.records(qm9._qm9pack() / "qm9_part1.csv"), FEW))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The cache in a temporary folder, for all tests of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTL_DATA", str(tmp_path_factory.mktemp("data")))
        yield


def arrays(records) -> Arrays:
    """The records as the cache would hold them."""
    counts = np.array([len(record.numbers) for record in records])
    numbers = np.concatenate([record.numbers for record in records])
    positions = np.concatenate([record.positions for record in records]).astype(np.float32)
    smiles = [record.smiles.encode() for record in records]
    flags, bonds, ways = qm9._graphs(smiles, numbers, positions, counts, [record.number for record in records])
    targets = np.stack([record.targets for record in records])
    return Arrays(np.arange(len(records)), counts, numbers, positions, flags, bonds, ways, targets)


def split(records, released=False):
    return qm9._split(arrays(records), released, torch.device("cpu"), torch.float64)


def alone(split, i):
    """Nodes [n, 11] and edges [n, n, 5] of one molecule."""
    molecules, _ = split.batch(torch.tensor([i]), ())
    (group,) = molecules.groups
    return group.nodes[0], group.edges[0]


# -- by hand -----------------------------------------------------------------------------------------------------------


def test_methane_by_hand(few):
    """CH4: an sp3 carbon with four hydrogens at 1.092 Å, 109.5° apart, single bonds; and nothing else is bonded."""
    nodes, edges = alone(split(few), 0)
    assert nodes.tolist() == [[0, 1, 0, 0, 0, 6, 0, 0, 0, 1, 4]] + 4 * [[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]]
    assert edges[0, 1:, :4].tolist() == 4 * [[1, 0, 0, 0]] and edges[1:, 1:, :4].sum() == 0
    assert_close(edges[0, 1:, 4], torch.full((4,), 1.092, dtype=torch.float64), atol=2e-4, rtol=0)
    between = 2 * 1.092 * np.sin(np.arccos(-1 / 3) / 2)
    assert all(abs(edges[i, j, 4] - between) < 1e-3 for i in range(1, 5) for j in range(1, 5) if i != j)
    assert (edges == edges.transpose(0, 1)).all() and (edges.diagonal().T == 0).all()


def test_methanes_targets_are_moleculenets(few):
    """The last four are MoleculeNet's kcal/mol of its file's first row; energies in eV, the rest as printed."""
    expected = [0, 13.21, -0.3877 * HARTREE, 0.1171 * HARTREE, 0.5048 * HARTREE, 35.3641, 0.044749 * HARTREE]
    expected += [-40.47893 * HARTREE, -40.476062 * HARTREE, -40.475117 * HARTREE, -40.498597 * HARTREE, 6.469]
    expected += [kcal * 0.04336414 for kcal in (-395.999594594, -398.643290011, -401.014646522, -372.471772148)]
    assert_close(few[0].targets[:16], np.array(expected), rtol=1e-11, atol=0)
    assert_close(few[0].targets[16:], np.array([157.7118, 157.70997, 157.70699]), rtol=0, atol=0)


def test_water_by_hand(few):
    """H2O: an sp3 oxygen, two hydrogens at 0.962 Å, 103.8° apart; all eleven targets, normalised and back."""
    data = split(few)
    nodes, edges = alone(data, 2)
    assert nodes.tolist() == [[0, 0, 0, 1, 0, 8, 0, 0, 0, 1, 2]] + 2 * [[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]]
    assert_close(edges[0, 1:, 4], torch.full((2,), 0.962, dtype=torch.float64), atol=1e-3, rtol=0)
    assert abs(np.degrees(2 * np.arcsin((edges[1, 2, 4] / 2 / edges[0, 1, 4]).item())) - 103.8) < 0.1
    kcal = 627.509 * 0.04336414
    free = {"U0Atom": (-76.404702, -0.500273, -75.064579), "UAtom": (-76.401867, -0.498857, -75.063163)}
    free |= {"HAtom": (-76.400922, -0.497912, -75.062219), "GAtom": (-76.422349, -0.510927, -75.079532)}
    expected = {name: (total - 2 * h - o) * kcal for name, (total, h, o) in free.items()}
    expected |= {"mu": 1.8511, "alpha": 6.31, "homo": -0.2928 * HARTREE, "lumo": 0.0687 * HARTREE, "r2": 19.0002}
    expected |= {"zpve": 0.021375 * HARTREE, "Cv": 6.002}
    _, targets = data.batch(torch.tensor([2]), tuple(PROPERTIES))
    for (name, known), target in zip(PROPERTIES.items(), targets, strict=True):
        assert target.shape == (1, 1)
        assert_close(target.item() * known.std + known.mean, expected[name], rtol=1e-9, atol=1e-9)
        assert known.factor == (1000 if known.unit == "meV" else 1)


def test_benzene_by_hand(few):
    """C6H6: six aromatic sp2 carbons in a ring of aromatic bonds of 1.39 Å, a hydrogen at 1.085 Å on each; as
    torch-geometric has it, nothing is aromatic and single and double bonds alternate."""
    nodes, edges = alone(split(few), BENZENE)
    assert nodes.tolist() == 6 * [[0, 1, 0, 0, 0, 6, 1, 0, 1, 0, 1]] + 6 * [[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]]
    ring = [(i, (i + 1) % 6) for i in range(6)]
    assert all(edges[i, j, :4].tolist() == [0, 0, 0, 1] and abs(edges[i, j, 4] - 1.394) < 1e-3 for i, j in ring)
    assert all(
        edges[i, i + 6, :4].tolist() == [1, 0, 0, 0] and abs(edges[i, i + 6, 4] - 1.085) < 1e-3 for i in range(6)
    )
    assert edges[..., :4].sum() == 2 * 12 and abs(edges[0, 3, 4] - 2 * 1.394) < 2e-3
    nodes, edges = alone(split(few, released=True), BENZENE)
    assert nodes[:6].tolist() == 6 * [[0, 1, 0, 0, 0, 6, 0, 0, 0, 0, 1]]
    kinds = [edges[i, j, :4].argmax().item() for i, j in ring]
    assert sorted(kinds) == [0, 0, 0, 1, 1, 1] and all(a != b for a, b in pairwise(kinds))


def test_triple_bond_by_hand(few):
    """HCN: two sp atoms, a triple bond of 1.152 Å."""
    nodes, edges = alone(split(few), 4)
    assert nodes[:, 5:].tolist() == [[6, 0, 1, 0, 0, 1], [7, 0, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]]
    assert edges[0, 1, :4].tolist() == [0, 0, 1, 0] and abs(edges[0, 1, 4] - 1.152) < 1e-3


# -- torch-geometric as an oracle --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def straight(few):
    """Those whose geometry lists the atoms as rdkit does: all but three."""
    found = [record for record, way in zip(few, arrays(few).ways, strict=True) if WAYS[way] == "in order"]
    assert len(found) == FEW - 3
    return found


@pytest.fixture(scope="module")
def pyg_folder(straight, tmp_path_factory):
    """Molecules in the three raw files that torch-geometric processes, and what its own code makes of them; one that
    its list of uncharacterised molecules names is among them."""
    from rdkit import Chem
    from rdkit.Geometry import Point3D
    from torch_geometric.datasets import QM9 as Download

    root = tmp_path_factory.mktemp("pyg")
    raw = root / "raw"
    raw.mkdir()
    with Chem.SDWriter(str(raw / "gdb9.sdf")) as sdf, (raw / "gdb9.sdf.csv").open("w") as table:
        print("mol_id,A,B,C,mu,alpha,homo,lumo,gap,r2,zpve,u0,u298,h298,g298,cv,atoms…", file=table)
        for record in [straight[0], *straight]:
            molecule = Chem.MolFromSmiles(record.smiles)
            Chem.Kekulize(molecule, clearAromaticFlags=True)  # of a ring's two forms, the one that we take
            molecule = Chem.AddHs(molecule)
            conformer = Chem.Conformer(molecule.GetNumAtoms())
            for i, position in enumerate(record.positions):
                conformer.SetAtomPosition(i, Point3D(*map(float, position)))
            molecule.AddConformer(conformer)
            sdf.write(molecule)
            eV, kcal = [1, 1] + 3 * [HARTREE] + [1] + 5 * [HARTREE] + [1], 4 * [0.04336414]
            native = record.targets / np.array(eV + kcal + [1, 1, 1])
            print(f"gdb_{record.number}", *np.roll(native, 3).tolist(), sep=",", file=table)
    (raw / "uncharacterized.txt").write_text("\n" * 9 + "1 first\n\n")
    Download(str(root))
    return root


def test_same_as_torch_geometrics_own_processing(straight, pyg_folder):
    """`released_features` gives what its code computes from the same molecules: features, bonds, distances, targets."""
    own, theirs = split(straight, released=True), qm9.read_pyg(str(pyg_folder))
    assert len(theirs.counts) == len(straight)
    reading = qm9._split(theirs, False, torch.device("cpu"), torch.float64)
    for i in range(len(straight)):
        (nodes, edges), (their_nodes, their_edges) = alone(own, i), alone(reading, i)
        assert torch.equal(nodes, their_nodes)
        assert torch.equal(edges, their_edges)
    assert_close(own.targets, reading.targets, rtol=1e-6, atol=2e-6)  # theirs are in single precision


def test_perception_agrees_with_rdkit_on_the_whole_structure(straight):
    """Aromaticity and hybridisation from the SMILES are those that rdkit finds when it is given all atoms, hydrogens
    included, with their bonds and positions."""
    from rdkit import Chem

    found = arrays(straight)
    ends = found.counts.cumsum()
    for record, end in zip(straight, ends, strict=True):
        whole = Chem.MolFromMolBlock(
            Chem.MolToMolBlock(Chem.AddHs(Chem.MolFromSmiles(record.smiles))), removeHs=False, sanitize=True
        )
        expected = [
            [
                a.GetIsAromatic(),
                *(a.GetHybridization() == getattr(Chem.HybridizationType, s) for s in ("SP", "SP2", "SP3")),
            ]
            for a in whole.GetAtoms()
        ]
        assert found.flags[end - len(record.numbers) : end].tolist() == expected


# -- SMILES and geometry -----------------------------------------------------------------------------------------------


def test_bonds_follow_the_atoms_wherever_they_are_listed(few):
    """Shuffle the geometry's atoms: the graph is shuffled the same way (up to what symmetry leaves open)."""
    shuffle = np.random.default_rng(0).permutation
    for record in few[10::10]:
        straight, way = graph(record.smiles, record.numbers, record.positions)
        assert way == "in order"
        p = shuffle(len(record.numbers))
        found, way = graph(record.smiles, record.numbers[p], record.positions[p])
        assert way == ("reordered" if (record.numbers[p] != record.numbers).any() else way)
        assert (found.numbers == record.numbers[p]).all()
        assert ((found.bonds > 0) == (straight.bonds > 0)[np.ix_(p, p)]).all()
        assert (found.flags == straight.flags[p]).all()


def carboxylate():
    """Glycine's zwitterion, drawn flat: the C–O bond of 1.23 Å is listed after that of 1.27 Å."""
    numbers = np.array([7, 1, 1, 1, 6, 6, 8, 8, 1, 1])
    n, ca, c = np.array([0, 0, 0.0]), np.array([1.5, 0, 0]), np.array([2.3, 1.3, 0])
    oxygens = [c + 1.27 * np.array([-0.6, 0.8, 0]), c + 1.23 * np.array([1, 0, 0])]
    hydrogens = [n + 1.03 * np.array(d) for d in ((-0.33, 0.94, 0), (-0.33, -0.47, 0.82), (-0.33, -0.47, -0.82))]
    own = [ca + 1.09 * np.array(d) for d in ((0.3, -0.54, 0.79), (0.3, -0.54, -0.79))]
    return "[NH3+]CC(=O)[O-]", numbers, np.array([n, *hydrogens, ca, c, *oxygens, *own])


def test_bond_lengths_settle_what_connectivity_leaves_open():
    """Hydrogens right after their atom, unlike in the SMILES; of the carboxylate's oxygens the nearer one is =O."""
    found, way = graph(*carboxylate())
    assert way == "reordered"
    assert found.bonds[5, 7] == qm9.DOUBLE and found.bonds[5, 6] == qm9.SINGLE
    assert found.bonds[0].nonzero()[0].tolist() == [1, 2, 3, 4]


def test_where_the_smiles_is_wrong_the_geometry_decides(few):
    """Formaldehyde under another molecule's SMILES, or one that cannot be read: the bonds are formaldehyde's."""
    record = few[5]
    right, _ = graph(record.smiles, record.numbers, record.positions)
    for smiles in ("CO", "[CH]O", "not a molecule"):
        found, way = graph(smiles, record.numbers, record.positions)
        assert way == "from the geometry"
        assert (found.bonds == right.bonds).all() and (found.flags == right.flags).all()


def test_what_cannot_be_read_is_named():
    """Neither SMILES nor geometry: the molecule, its SMILES and rdkit's reason, instead of one molecule less."""
    far = np.arange(9, dtype=np.float32).reshape(3, 3) * 50
    with pytest.raises(UnreadableMolecule, match=r"molecule 4711.*'not a molecule'.*geometry"):
        qm9._graphs([b"not a molecule"], np.array([8, 6, 6]), far, np.array([3]), [4711])


# -- the whole set -----------------------------------------------------------------------------------------------------


def test_the_split_is_the_papers():
    """The released code's shuffled list, whole: the first 10,000 are test, the next 10,000 val."""
    parts = qm9.order()
    shuffled = np.concatenate([parts["test"], parts["val"], parts["train"]]).tolist()
    assert [len(part) for part in parts.values()] == [110_831, 10_000, 10_000]
    assert shuffled[:5] == [40501, 98762, 109143, 49861, 14415] and shuffled[-3:] == [99346, 50494, 110680]
    digest = hashlib.sha256("\n".join(map(str, shuffled)).encode()).hexdigest()
    assert digest == "b1da559d9a896e665ce440a7f172d8c45476c6331335c5fb0499521acc934e5d"


def test_all_molecules_and_their_statistics(cache):
    """130,831 molecules, 3,054 numbers missing; means and standard deviations are those that tasks are normalised with
    and those published for torch-geometric's QM9."""
    index, targets = (qm9._read(qm9._table(), name) for name in ("index", "targets"))
    assert len(index) == 130_831 and index[-1] == 133_885 and 133_885 - len(np.unique(index)) == 3_054
    mean, std = targets.mean(0), targets.std(0, ddof=1)
    for name, known in PROPERTIES.items():
        k = TARGETS.index(name)
        assert_close((mean[k], std[k]), (known.mean, known.std), rtol=1e-8, atol=0)
    published = {
        "mu": (2.6729531, 1.503479),
        "alpha": (75.28118, 8.173830),
        "homo": (-6.536452, 0.5977412),
        "lumo": (0.32204, 1.27485),
        "gap": (6.8584918, 1.284168),
        "r2": (1189.41064, 280.478149),
        "zpve": (4.0569372, 0.9017231),
        "U0": (-11178.9667, 1085.57873),
        "U": (-11178.7353, 1085.572753),
        "H": (-11178.70996, 1085.57275),
        "G": (-11179.87695, 1085.5924072),
        "Cv": (31.6203632, 4.067580),
        "U0Atom": (-76.116012, 10.323753),
        "UAtom": (-76.580490, 10.415176),
        "HAtom": (-77.018257, 10.4892702),
        "GAtom": (-70.836662, 9.498342),
        "A": (9.9660215, 1830.4630126),
        "B": (1.406728, 1.6008282),
        "C": (1.1273994, 1.107471),
    }
    for name, values in published.items():
        k = TARGETS.index(name)
        assert_close((mean[k], std[k]), values, rtol=2e-5, atol=0)


@pytest.fixture(scope="module")
def data(cache):
    return QM9().load("embedded", (300, 40, 40), None, CPU, torch.float64)


def test_subsets_are_the_first_of_the_shuffled_lists(data, cache):
    for name, size in (("train", 300), ("val", 40), ("test", 40)):
        assert data[name].molecules.tolist() == qm9.order()[name][:size].tolist()
    small = QM9(max_atoms=12).load("embedded", (30, 20, 20), None, CPU, torch.float32)
    counts = qm9._read(qm9._table(), "counts")
    for name, part in small.items():
        allowed = [i for i in qm9.order()[name] if counts[i] <= 12]
        assert part.molecules.tolist() == allowed[: len(part)]
        assert part.atoms.tolist() == counts[part.molecules].tolist() and max(part.atoms) <= 12
        assert sorted(part.atoms[:20]) == sorted(
            group.nodes.shape[1] for group in part.batch(torch.arange(20), ())[0].groups for _ in group.index
        )
    with pytest.raises(ValueError, match=r"val_size is 400; \d+ molecules of that split have at most 12 atoms"):
        QM9(max_atoms=12).prepare("embedded", (100, 400, 100), None)


def test_what_part_of_all_molecules_is_small(cache):
    """Three atoms: water and hydrogen cyanide. The largest molecules have 29."""
    assert QM9(max_atoms=3).share() * qm9.MOLECULES == pytest.approx(2)
    assert QM9(max_atoms=28).share() < QM9(max_atoms=29).share() == QM9().share() == 1


def test_a_batch_holds_every_molecule_once_in_its_place(data):
    """Groups by number of atoms, whatever the order and with repetitions; atoms, distances and targets are the
    table's."""
    train, columns = data["train"], [TARGETS.index(name) for name in PROPERTIES]
    index = torch.tensor([7, 250, 7, 3, 99, 42, 298, 11])
    molecules, targets = train.batch(index, tuple(PROPERTIES))
    assert molecules.size == 8 and sorted(torch.cat([g.index for g in molecules.groups]).tolist()) == list(range(8))
    counts, numbers, positions, values = (
        qm9._read(qm9._table(), name) for name in ("counts", "numbers", "positions", "targets")
    )
    starts = np.cumsum(counts, dtype=np.int64) - counts
    for group in molecules.groups:
        n = group.nodes.shape[1]
        assert group.nodes.shape == (len(group.index), n, 11) and group.edges.shape == (len(group.index), n, n, 5)
        for place, nodes, edges in zip(group.index, group.nodes, group.edges, strict=True):
            molecule = train.molecules[index[place]]
            own = slice(starts[molecule], starts[molecule] + n)
            assert counts[molecule] == n and nodes[:, 5].tolist() == numbers[own].tolist()
            assert (nodes[:, :5].argmax(1) == torch.from_numpy(np.searchsorted(qm9.ELEMENTS, numbers[own]))).all()
            x = torch.from_numpy(positions[own].astype(np.float64))
            assert_close(edges[..., 4], torch.cdist(x, x), atol=1e-6, rtol=0)
            restored = [t[place, 0].item() * p.std + p.mean for t, p in zip(targets, PROPERTIES.values(), strict=True)]
            assert_close(restored, values[molecule][columns].tolist(), rtol=1e-9, atol=1e-9)
    mu, cv = train.batch(index, ("mu", "Cv"))[1]
    assert torch.equal(mu, targets[0]) and torch.equal(cv, targets[-1]) and mu.shape == (8, 1)


def test_valences_are_chemical(data):
    """In Kekulé form every H, C, N, O, F has 1, 4, 3, 2, 1 bonds, a charged atom one more or less; charges cancel."""
    released = QM9(released_features=True).load("embedded", (300, 40, 40), None, CPU, torch.float64)["train"]
    smiles = qm9._read(qm9._table(), "smiles")
    for i in range(300):
        nodes, edges = alone(released, i)
        valence = (edges[..., :3] * torch.tensor([1, 2, 3])).sum((1, 2))
        excess = valence - nodes[:, :5] @ torch.tensor([1, 4, 3, 2, 1.0], dtype=torch.float64)
        charged = smiles[released.molecules[i]].count(b"+") + smiles[released.molecules[i]].count(b"-")
        assert excess.sum() == 0 and excess.abs().sum() == charged


@pytest.mark.parametrize(
    ("number", "way"),
    [
        (4, "reordered"),  # acetylene: the first hydrogen sits on the second carbon
        (52466, "reordered"),  # CC#CC#CC#CC=O, listed from the other end
        (81580, "reordered"),  # a zwitterion, two atoms 1.80 Å apart across its cage
        (133831, "in order"),  # a cage with 1.74 Å between two atoms that have no bond
        (133857, "from the geometry"),  # two cages whose SMILES has a bond where there are 2.1 Å
        (133859, "from the geometry"),
    ],
)
def test_known_exceptions(number, way, cache):
    table = {name: qm9._read(qm9._table(), name) for name in ("index", "smiles", "counts", "numbers", "positions")}
    k = np.searchsorted(table["index"], number)
    start = int(table["counts"][:k].sum(dtype=np.int64))
    own = slice(start, start + int(table["counts"][k]))
    found, went = graph(table["smiles"][k].decode(), table["numbers"][own], table["positions"][own].astype(float))
    assert went == way and (found.numbers == table["numbers"][own]).all()
    distances = np.linalg.norm(table["positions"][own][:, None] - table["positions"][own], axis=-1)
    assert distances[found.bonds > 0].max() < 1.65


def test_every_molecule_is_accounted_for(data):
    """Each of the 380 went one of the three ways, nearly all the first."""
    ways = QM9().ways((300, 40, 40))
    assert list(ways) == list(WAYS) and sum(ways.values()) == 380
    assert ways["in order"] > 370


# -- bad input and the cache -------------------------------------------------------------------------------------------


def test_a_missing_package_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "qm9pack", None)  # Python's own way to say that there is no such module
    with pytest.raises(DataNotFound, match=r"qm9pack.*not installed.*pip install .*qm9pack==1\.0\.3"):
        QM9().check("embedded", (10, 10, 10), None)


def test_a_truncated_package_is_refused(monkeypatch, tmp_path):
    data = tmp_path / "qm9pack" / "data"
    data.mkdir(parents=True)
    (tmp_path / "qm9pack" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataNotFound, match=r"qm9_part1\.csv does not exist.*pip install"):
        QM9().check("embedded", (10, 10, 10), None)
    (data / "qm9_part1.csv").write_text("XYZ_file,Index\n")
    with pytest.raises(DataNotFound, match=r"qm9_part1\.csv has 15 bytes, expected 69,693,764.*pip install"):
        QM9().check("embedded", (10, 10, 10), None)


def test_impossible_sizes_and_options_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"test_size is 10,001; it may be from 1 to 10,000"):
        QM9().check("embedded", (10, 10, 10_001), None)
    with pytest.raises(ValueError, match="max_atoms is 2; molecules have from 3 to 29 atoms"):
        QM9(max_atoms=2)
    with pytest.raises(DataNotFound, match=r"data_dir.*torch_geometric"):
        QM9().check("pyg", (10, 10, 10), None)
    with pytest.raises(DataNotFound, match=r"processed/data_v3\.pt does not exist.*torch_geometric"):
        QM9().check("pyg", (10, 10, 10), str(tmp_path))


def test_a_package_with_other_contents_is_refused(monkeypatch, tmp_path):
    """Of the right sizes, but one digit is another one."""
    monkeypatch.setenv("MTL_DATA", str(tmp_path / "cache"))
    for name in qm9.FILES:
        (tmp_path / name).write_text("0123")
    monkeypatch.setattr(qm9, "FILES", {name: (4, zlib.crc32(b"0124")) for name in qm9.FILES})
    monkeypatch.setattr(qm9, "_qm9pack", lambda: tmp_path)
    with pytest.raises(DataNotFound, match=r"qm9_part1\.csv has other contents than qm9pack 1\.0\.3's.*pip install"):
        QM9().prepare("embedded", (10, 10, 10), None)
    assert list((tmp_path / "cache").rglob("*.npy")) == []


def test_a_download_is_read_without_its_raw_files_and_another_one_refused(pyg_folder, monkeypatch, tmp_path):
    """Before training: other sizes, other targets, and targets that belong to other atoms."""
    shutil.copytree(pyg_folder / "processed", tmp_path / "processed")
    few = qm9.read_pyg(str(tmp_path))
    assert len(few.counts) == 257 and sorted(path.name for path in tmp_path.iterdir()) == ["processed"]

    def refused(error, says, **changed):
        qm9._pyg.cache_clear()
        monkeypatch.setattr(qm9, "read_pyg", lambda _: few._replace(**changed))
        with pytest.raises(error, match=says):
            QM9().prepare("pyg", (10, 10, 10), str(tmp_path))

    refused(DataNotFound, r"holds 257 molecules, expected 130,831")
    monkeypatch.setattr(qm9, "MOLECULES", 257)
    refused(ValueError, r"mu is 2\.19615 ± .* over all molecules, expected 2\.67295 ± 1\.50348")
    refused(ValueError, "energies do not belong to its atoms: 222 molecules", targets=np.roll(few.targets, 1, 0))
    refused(ValueError, r"energies do not belong to its atoms: \d+ molecules, the first", numbers=few.numbers[::-1])
    refused(ValueError, "none of H, C, N, O and F: 255", numbers=few.numbers + np.uint8(1))
    refused(ValueError, "a target is not finite: 257", targets=few.targets * np.nan)
    known = few.targets[:, [TARGETS.index(name) for name in PROPERTIES]]
    own = {n: p._replace(mean=v.mean(), std=v.std()) for (n, p), v in zip(PROPERTIES.items(), known.T, strict=True)}
    monkeypatch.setattr(qm9, "PROPERTIES", own)
    monkeypatch.setattr(qm9, "read_pyg", lambda _: few)
    QM9().check("pyg", (10, 10, 10), str(tmp_path))
    assert qm9._pyg(str(tmp_path)) is few
    qm9._pyg.cache_clear()


class Dangerous:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def test_nothing_in_a_download_is_run(tmp_path):
    """A foreign file that would run a command is refused by name; so is one that is no such file at all."""
    file = tmp_path / "processed" / "data_v3.pt"
    file.parent.mkdir()
    for write in (torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))):
        write((Dangerous(tmp_path / "touched"), {}, None), file)
        with pytest.raises(DataNotFound, match=r"data_v3\.pt is damaged, or not what torch-geometric's QM9 writes"):
            QM9().prepare("pyg", (10, 10, 10), str(tmp_path))
    for content in (b"", b"text"):
        file.write_bytes(content)
        with pytest.raises(DataNotFound, match=r"data_v3\.pt is damaged.*source: embedded"):
            QM9().prepare("pyg", (10, 10, 10), str(tmp_path))
    assert not (tmp_path / "touched").exists()


def test_a_damaged_cache_is_made_again(cache):
    """A flipped bit, a file cut short, a file lost."""
    sizes = (30, 5, 5)
    folder = QM9()._embedded(sizes)
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(whole) == len(Arrays._fields) + 1
    for name, damage in (("bonds", lambda old: old[:-1] + bytes([old[-1] ^ 1])), ("targets", lambda old: old[:-8])):
        (folder / f"{name}.npy").write_bytes(damage(whole[f"{name}.npy"]))
        with pytest.warns(UserWarning, match="is damaged, or an older version's: it is made again"):
            QM9().prepare("embedded", sizes, None)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
    (folder / "flags.npy").unlink()
    with pytest.warns(UserWarning, match="is made again"):
        QM9().prepare("embedded", sizes, None)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole


def test_another_version_reads_its_own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MTL_DATA", str(tmp_path))
    ours = qm9._folder("table")
    monkeypatch.setattr(qm9, "CODE_VERSION", qm9.CODE_VERSION + 1)
    assert ours.is_relative_to(tmp_path) and qm9._folder("table") != ours and "qm9pack-1.0.3" in str(ours)
