// Starts the slides, and makes the text of one that is too full smaller until it fits.
const LARGEST = 28, SMALLEST = 15, FOOT = 40;

function full(slide) {
  const last = slide.lastElementChild;  // which ends above the slide's number
  return last.offsetTop + last.offsetHeight > slide.clientHeight - FOOT || slide.scrollWidth > slide.clientWidth;
}

function fit(slide) {
  let size = slide.querySelector("figure") ? LARGEST - 4 : LARGEST;
  do slide.style.fontSize = `${size}px`;
  while (full(slide) && --size >= SMALLEST);
}

const fitAll = () => document.querySelectorAll(".slides section section, .slides .pdf-page > section").forEach(fit);
Reveal.on("ready", fitAll);
Reveal.on("pdf-ready", fitAll);
Reveal.on("slidechanged", (event) => fit(event.currentSlide));
const upright = window.innerWidth < 600 && window.innerHeight > window.innerWidth;  // a phone: half as wide, and as high
const width = upright ? 640 : 1280, height = upright ? Math.round(640 * window.innerHeight / window.innerWidth) : 720;
document.documentElement.classList.toggle("upright", upright);
document.documentElement.style.setProperty("--high", `${height}px`);
Reveal.initialize({
  width, height, margin: 0, center: false, display: "flex", hash: true, transition: "none",
  slideNumber: "c/t", navigationMode: "linear", controlsTutorial: false, scrollActivationWidth: null,
});
