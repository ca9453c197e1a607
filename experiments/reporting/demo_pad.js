// The paper of the drawing pad. Runs once in the page of `experiments.demo`, where Gradio
// provides `element` and `props`. `props.value` is the drawing as a PNG, or empty.
"use strict";
const SIDE = 400, LARGEST = 600, MOST_BYTES = 30_000_000;
const paper = element.querySelector("canvas");
const pen = paper.getContext("2d");
const width = Number(paper.dataset.pen);
const say = (text) => { element.querySelector(".note").textContent = text; };
const send = () => { props.value = paper.toDataURL("image/png"); };
let last = null;

const clear = () => {
  paper.width = paper.height = SIDE;
  paper.classList.add("blank");
  say("");
};

const stroke = (points) => {
  pen.lineWidth = width * Math.max(paper.width, paper.height) / SIDE;
  pen.lineCap = pen.lineJoin = "round";
  pen.strokeStyle = "#101418";
  pen.beginPath();
  pen.moveTo(...points[0]);
  for (const [x, y] of points) pen.lineTo(x + 0.01, y);
  pen.stroke();
  paper.classList.remove("blank");
};

const place = (event) => {
  const box = paper.getBoundingClientRect();
  return [(event.clientX - box.left) * paper.width / box.width,
    (event.clientY - box.top) * paper.height / box.height];
};

paper.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || last !== null) return;
  paper.setPointerCapture(event.pointerId);
  last = place(event);
  stroke([last]);
});
paper.addEventListener("pointermove", (event) => {
  if (last === null) return;
  const places = (event.getCoalescedEvents?.() ?? []).map(place);
  const points = [last, ...places, place(event)];
  stroke(points);
  last = points.at(-1);
});
for (const end of ["pointerup", "pointercancel"]) {
  paper.addEventListener(end, () => {
    if (last !== null) send();
    last = null;
  });
}

element.querySelector(".clear").addEventListener("click", () => {
  clear();
  props.value = "";
});

element.querySelector(".example")?.addEventListener("click", () => {
  clear();
  // A three, by the points between which its curve bends.
  const bends = [[125, 105], [165, 60], [235, 60], [275, 100], [265, 160], [190, 190],
    [275, 215], [295, 280], [250, 335], [170, 340], [115, 300]];
  const points = [bends[0]];
  for (let i = 1; i < bends.length - 1; i++) {
    const middle = (a, b) => a.map((each, k) => (each + b[k]) / 2);
    const from = points.at(-1);
    const to = i === bends.length - 2 ? bends.at(-1) : middle(bends[i], bends[i + 1]);
    for (let s = 0.1; s < 1.05; s += 0.1) {
      points.push(from.map((each, k) =>
        (1 - s) ** 2 * each + 2 * s * (1 - s) * bends[i][k] + s ** 2 * to[k]));
    }
  }
  stroke(points);
  send();
});

const file = element.querySelector("input");
element.querySelector(".upload").addEventListener("click", () => file.click());
file.addEventListener("change", async () => {
  const [chosen] = file.files;
  file.value = "";
  if (!chosen) return;
  if (chosen.size > MOST_BYTES) return say("This file is larger than 30 MB.");
  let image;
  try {
    image = await createImageBitmap(chosen);
  } catch {
    return say("Your browser cannot show this file as an image.");
  }
  clear();
  const scale = Math.min(1, LARGEST / Math.max(image.width, image.height));
  paper.width = Math.max(1, Math.round(scale * image.width));
  paper.height = Math.max(1, Math.round(scale * image.height));
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, paper.width, paper.height);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(image, 0, 0, paper.width, paper.height);
  image.close();
  paper.classList.remove("blank");
  send();
});
