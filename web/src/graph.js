// Throughput over time on a canvas: two lines, the axes, and the value at the pointer.

import { bitrate, ceiling } from "./format.js";

const WINDOW_MS = 180_000;
const PAD = { left: 4, right: 4, top: 10, bottom: 18 };

/** Value of a CSS colour property, as a canvas accepts it. */
function colours(canvas) {
	const probe = document.createElement("span");
	canvas.after(probe);
	const one = (name) => {
		probe.style.color = `var(--${name})`;
		return getComputedStyle(probe).color;
	};
	const found = { in: one("in"), out: one("out"), line: one("line"), dim: one("dim"), ink: one("ink"), card: one("card") };
	probe.remove();
	return found;
}

/** A graph of the last three minutes. */
export class Graph {
	#canvas;
	#samples = [];
	#top = 1000;
	#pointer = null;
	#colours;

	constructor(canvas) {
		this.#canvas = canvas;
		this.recolour();
		new ResizeObserver(() => this.draw()).observe(canvas);
		canvas.addEventListener("pointermove", (event) => {
			this.#pointer = event.offsetX;
			this.draw();
		});
		canvas.addEventListener("pointerleave", () => {
			this.#pointer = null;
			this.draw();
		});
	}

	/** Reads the colours of the page again. */
	recolour() {
		this.#colours = colours(this.#canvas);
		this.draw();
	}

	/** Adds a figure and draws. */
	push(at, bitsIn, bitsOut) {
		this.#samples.push({ at, in: bitsIn, out: bitsOut });
		while (this.#samples.length > 0 && this.#samples[0].at < at - WINDOW_MS - 2000) this.#samples.shift();
		const most = Math.max(...this.#samples.map((one) => Math.max(one.in, one.out)), 1000);
		this.#top = ceiling(most * 1.05);
		this.draw();
	}

	draw() {
		const { clientWidth: width, clientHeight: height } = this.#canvas;
		if (width === 0) return;
		const ratio = devicePixelRatio || 1;
		if (this.#canvas.width !== Math.round(width * ratio) || this.#canvas.height !== Math.round(height * ratio)) {
			this.#canvas.width = Math.round(width * ratio);
			this.#canvas.height = Math.round(height * ratio);
		}
		const to = this.#canvas.getContext("2d");
		to.setTransform(ratio, 0, 0, ratio, 0, 0);
		to.clearRect(0, 0, width, height);
		const now = this.#samples.at(-1)?.at ?? Date.now();
		const plot = {
			x: (at) => PAD.left + (1 - (now - at) / WINDOW_MS) * (width - PAD.left - PAD.right),
			y: (bits) => height - PAD.bottom - (bits / this.#top) * (height - PAD.top - PAD.bottom),
			width,
			height,
			now,
		};
		this.#axes(to, plot);
		to.save();
		to.beginPath();
		to.rect(PAD.left, 0, width - PAD.left - PAD.right, height - PAD.bottom + 1);
		to.clip();
		this.#line(to, plot, "out");
		this.#line(to, plot, "in");
		to.restore();
		this.#labels(to, plot);
		if (this.#pointer !== null) this.#point(to, plot);
	}

	#axes(to, { x, y, width, now }) {
		to.strokeStyle = this.#colours.line;
		to.lineWidth = 1;
		to.beginPath();
		for (const part of [0, 0.5, 1]) {
			const at = Math.round(y(this.#top * part)) + 0.5;
			to.moveTo(PAD.left, at);
			to.lineTo(width - PAD.right, at);
		}
		// A tick marks a time, so it moves with the line.
		for (let tick = Math.ceil((now - WINDOW_MS) / 30_000) * 30_000; tick <= now; tick += 30_000) {
			const at = Math.round(x(tick)) + 0.5;
			to.moveTo(at, y(0));
			to.lineTo(at, y(0) + 3);
		}
		to.stroke();
	}

	#labels(to, { y, width, height }) {
		to.font = `11px ${getComputedStyle(this.#canvas).fontFamily}`;
		to.lineWidth = 3;
		to.lineJoin = "round";
		to.strokeStyle = this.#colours.card;
		to.fillStyle = this.#colours.dim;
		const say = (words, x, at) => {
			to.strokeText(words, x, at);
			to.fillText(words, x, at);
		};
		to.textAlign = "left";
		for (const part of [0.5, 1]) say(bitrate(this.#top * part), PAD.left + 2, y(this.#top * part) + 12);
		to.fillText("3 min ago", PAD.left + 2, height - 4);
		to.textAlign = "center";
		for (const [part, words] of [[1 / 3, "2 min"], [2 / 3, "1 min"]]) to.fillText(words, PAD.left + part * (width - PAD.left - PAD.right), height - 4);
		to.textAlign = "right";
		to.fillText("now", width - PAD.right - 2, height - 4);
	}

	#line(to, { x, y }, which) {
		if (this.#samples.length === 0) return;
		to.beginPath();
		this.#samples.forEach((one, at) => (at === 0 ? to.moveTo(x(one.at), y(one[which])) : to.lineTo(x(one.at), y(one[which]))));
		to.strokeStyle = this.#colours[which];
		to.lineWidth = 1.75;
		to.lineJoin = "round";
		to.stroke();
		to.lineTo(x(this.#samples.at(-1).at), y(0));
		to.lineTo(x(this.#samples[0].at), y(0));
		to.closePath();
		to.globalAlpha = 0.1;
		to.fillStyle = this.#colours[which];
		to.fill();
		to.globalAlpha = 1;
	}

	#point(to, { x, y, width, height }) {
		let nearest = null;
		for (const one of this.#samples) {
			if (nearest === null || Math.abs(x(one.at) - this.#pointer) < Math.abs(x(nearest.at) - this.#pointer)) nearest = one;
		}
		if (nearest === null) return;
		const at = x(nearest.at);
		to.strokeStyle = this.#colours.dim;
		to.lineWidth = 1;
		to.beginPath();
		to.moveTo(Math.round(at) + 0.5, PAD.top);
		to.lineTo(Math.round(at) + 0.5, height - PAD.bottom);
		to.stroke();
		for (const which of ["in", "out"]) {
			to.fillStyle = this.#colours[which];
			to.beginPath();
			to.arc(at, y(nearest[which]), 3, 0, 7);
			to.fill();
		}
		const words = `${new Date(nearest.at).toLocaleTimeString("en-GB")}  in ${bitrate(nearest.in)}  out ${bitrate(nearest.out)}`;
		const left = at < width / 2;
		to.textAlign = left ? "left" : "right";
		to.lineWidth = 4;
		to.strokeStyle = this.#colours.card;
		to.strokeText(words, at + (left ? 8 : -8), PAD.top + 12);
		to.fillStyle = this.#colours.ink;
		to.fillText(words, at + (left ? 8 : -8), PAD.top + 12);
	}
}
