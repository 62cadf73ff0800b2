// The test pattern: moving bars, a clock with milliseconds, a frame counter.

const BARS = ["#c8c8c4", "#c9b13c", "#3fa9a3", "#4d9a4a", "#a4559a", "#b5483f", "#3f5fb0"];

const two = (n) => `${n}`.padStart(2, "0");

/** The time of day, in the format of the picture and the pane beside it. */
export function clock(ms) {
	const date = new Date(ms);
	return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${`${date.getMilliseconds()}`.padStart(3, "0")}`;
}

function stamp(to, width, height, ms, frame, words) {
	const unit = height / 360;
	to.fillStyle = "rgba(12, 14, 16, .82)";
	to.fillRect(0, height - 92 * unit, width, 92 * unit);
	to.fillStyle = "#fff";
	to.textBaseline = "alphabetic";
	to.font = `600 ${46 * unit}px ui-monospace, Menlo, Consolas, monospace`;
	to.textAlign = "left";
	to.fillText(clock(ms), 20 * unit, height - 40 * unit);
	to.font = `${18 * unit}px ui-monospace, Menlo, Consolas, monospace`;
	to.fillStyle = "#b9c0c6";
	to.fillText(words, 20 * unit, height - 14 * unit);
	to.textAlign = "right";
	to.fillText(`frame ${frame}`, width - 20 * unit, height - 14 * unit);
}

/** Draws one frame of the test pattern. */
export function draw(to, { width, height }, ms, frame, words) {
	const step = width / BARS.length;
	// Crosses the picture in seven seconds: a frozen picture is visible at once.
	const shift = ((ms / 7000) % 1) * width;
	for (let at = -BARS.length; at < BARS.length; at += 1) {
		to.fillStyle = BARS[(at + BARS.length) % BARS.length];
		to.fillRect(Math.floor(at * step + shift), 0, Math.ceil(step) + 1, height);
	}
	// Canvas angles are inexact when they are large.
	const turn = ((ms % 2000) / 2000) * Math.PI * 2;
	const [x, y, radius] = [width / 2, (height - 92 * (height / 360)) / 2, height * 0.24];
	to.fillStyle = "rgba(12, 14, 16, .82)";
	to.beginPath();
	to.arc(x, y, radius, 0, 7);
	to.fill();
	to.strokeStyle = "#fff";
	to.lineWidth = height / 60;
	to.lineCap = "round";
	to.beginPath();
	to.arc(x, y, radius * 0.78, turn - Math.PI / 2 - 1.2, turn - Math.PI / 2);
	to.stroke();
	// A group begins when the hand is at the top.
	to.beginPath();
	to.arc(x + Math.sin(turn) * radius * 0.45, y - Math.cos(turn) * radius * 0.45, height / 40, 0, 7);
	to.fillStyle = "#fff";
	to.fill();
	stamp(to, width, height, ms, frame, words);
}

/** Draws a picture of the camera, with the clock below. */
export function drawCamera(to, { width, height }, video, ms, frame, words) {
	const scale = Math.max(width / video.videoWidth, height / video.videoHeight);
	const [w, h] = [video.videoWidth * scale, video.videoHeight * scale];
	to.drawImage(video, (width - w) / 2, (height - h) / 2, w, h);
	stamp(to, width, height, ms, frame, words);
}
