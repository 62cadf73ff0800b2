// Plays the video of a *hang* broadcast: newest picture first, onto a canvas.

import { Path } from "@moq/net";
import { CATALOG, catalogs, unhex, unpacker } from "./hang.js";
import { forbidden, info } from "./info.js";
import { borrow, each, trouble } from "./relay.js";

// Longest wait for a group that is not the newest.
const LATE_MS = 1000;
// Delay of the decoder at which the rest of a group is skipped, microseconds.
const BEHIND_US = 1_000_000;
// Timestamps this close to the clock are treated as times of day.
const CLOCK_MS = 600_000;
// Time after which a missing catalog is given up.
const CATALOG_MS = 2000;

/** Renditions that this browser can play, largest first. */
async function playable(catalog) {
	const found = [];
	let trouble = "There is no video in this broadcast.";
	for (const [name, config] of Object.entries(catalog.video?.renditions ?? {})) {
		const unpack = unpacker(config.container?.kind);
		if (!unpack) {
			trouble = `This page does not play the container “${config.container.kind}”.`;
			continue;
		}
		if (!("VideoDecoder" in globalThis)) {
			trouble = globalThis.isSecureContext ? "This browser has no video decoder (WebCodecs)." : "Browsers decode video this way only on https:// pages and on localhost.";
			continue;
		}
		const decoder = { codec: config.codec, optimizeForLatency: true };
		if (config.codedWidth && config.codedHeight) Object.assign(decoder, { codedWidth: config.codedWidth, codedHeight: config.codedHeight });
		if (config.description) decoder.description = unhex(config.description);
		const { supported } = await VideoDecoder.isConfigSupported(decoder).catch(() => ({ supported: false }));
		if (supported) found.push({ name, decoder, unpack, size: (config.codedWidth ?? 0) * (config.codedHeight ?? 0) });
		else trouble = `This browser does not decode ${config.codec}.`;
	}
	found.sort((a, b) => b.size - a.size);
	return { found, trouble };
}

/** A playing broadcast. `onNote` is called with a message for people, or an empty string when there is none. */
export class Player {
	#canvas;
	#context;
	#onNote;
	#lease = borrow();
	#handle;
	#endings = [];
	#broadcast;
	#catalog;
	#waiting;
	#video;
	#decoder;
	#latest;
	#drawing = 0;
	#ended = false;
	#since = { at: performance.now(), frames: 0, bytes: 0 };
	#seen = { frames: 0, bytes: 0, groups: 0 };

	// Newest timestamps at the input and output of the decoder.
	#given = 0;
	#shown = 0;

	/** Codec of the picture. */
	codec = "";
	/** Size of the picture. */
	size = "";
	/** Age of the picture by both clocks, if the publisher's timestamps are times of day. */
	latency;

	constructor(path, canvas, onNote) {
		this.#canvas = canvas;
		this.#context = canvas.getContext("2d", { alpha: false });
		this.#onNote = onNote;
		onNote("Waiting for the broadcast.");
		this.#handle = this.#lease.connection.announcedBroadcast(Path.from(path));
		this.#endings.push(each(this.#handle.active, (broadcast) => this.#open(broadcast)));
		info().then(
			(found) => {
				const refused = forbidden("subscribe", path, found);
				if (refused !== "" && !this.#broadcast && !this.#ended) onNote(refused);
			},
			() => {},
		);
	}

	/** Reason why there is no session; empty while there is one. */
	get trouble() {
		return trouble(this.#lease.connection);
	}

	/** The session in use, once there is one. */
	get session() {
		return this.#lease.connection.established.peek();
	}

	/** Figures since the last call. */
	rates() {
		const now = performance.now();
		const seconds = Math.max(0.001, (now - this.#since.at) / 1000);
		const rates = {
			fps: (this.#seen.frames - this.#since.frames) / seconds,
			bps: ((this.#seen.bytes - this.#since.bytes) * 8) / seconds,
			groups: this.#seen.groups,
		};
		this.#since = { at: now, frames: this.#seen.frames, bytes: this.#seen.bytes };
		return rates;
	}

	/** Ends it. */
	end() {
		if (this.#ended) return;
		this.#ended = true;
		for (const ending of this.#endings) ending();
		this.#stop();
		this.#handle.close();
		cancelAnimationFrame(this.#drawing);
		this.#latest?.close();
		this.#latest = undefined;
		this.#lease.giveBack();
	}

	#stop() {
		clearTimeout(this.#waiting);
		this.#catalog?.close();
		this.#video?.close();
		if (this.#decoder && this.#decoder.state !== "closed") this.#decoder.close();
		this.#catalog = this.#video = this.#decoder = undefined;
	}

	#open(broadcast) {
		if (this.#ended || broadcast === this.#broadcast) return;
		const before = this.#broadcast;
		this.#broadcast = broadcast;
		this.#stop();
		if (!broadcast) {
			if (before) this.#onNote("The broadcast has ended. It is played again when it comes back.");
			return;
		}
		this.#onNote("");
		this.#waiting = setTimeout(() => this.#onNote(`There is no catalog (track “${CATALOG}”), so this page cannot play the broadcast. Its tracks and groups can be inspected below.`), CATALOG_MS);
		this.#follow(broadcast).catch((error) => {
			if (!this.#ended && broadcast === this.#broadcast) this.#onNote(`No catalog: ${error.message}`);
		});
	}

	async #follow(broadcast) {
		const subscription = broadcast.track(CATALOG).subscribe({ priority: 100 });
		this.#catalog = subscription;
		let current;
		for await (const catalog of catalogs(subscription)) {
			clearTimeout(this.#waiting);
			const { found, trouble } = await playable(catalog);
			if (this.#ended || broadcast !== this.#broadcast) return;
			if (found.length === 0) {
				this.#onNote(trouble);
				continue;
			}
			const { size, unpack, ...rest } = found[0];
			const wanted = JSON.stringify(rest);
			if (wanted === current) continue;
			current = wanted;
			this.#onNote("");
			this.#play(broadcast, found[0]);
		}
	}

	async #play(broadcast, rendition) {
		this.#video?.close();
		const video = broadcast.track(rendition.name).subscribe({ priority: 60, latencyMax: LATE_MS });
		this.#video = video;
		try {
			for (let group = await video.nextGroup(); group; group = await video.nextGroup()) {
				this.#seen.groups += 1;
				// An interrupted group is skipped; the next one starts anew.
				await this.#group(group, video, rendition).catch(() => {});
				if (video !== this.#video) return;
			}
		} catch (error) {
			if (video === this.#video && !this.#ended) this.#onNote(`The video broke off: ${error.message}`);
		}
	}

	async #group(group, video, { decoder, unpack }) {
		let first = true;
		for (let frame = await group.readFrame(); frame && video === this.#video; frame = await group.readFrame()) {
			const { timestamp, data } = unpack(frame.payload);
			this.#seen.bytes += frame.payload.byteLength;
			// A frame without payload only marks the progress of the track.
			if (data.byteLength === 0) continue;
			// The first group is decoded completely: it began before the viewer.
			if (this.#seen.groups > 1 && this.#decoder?.decodeQueueSize > 0 && this.#given - this.#shown > BEHIND_US) return group.close();
			if (first) this.#ready(decoder);
			this.#given = timestamp;
			this.#decoder.decode(new EncodedVideoChunk({ type: first ? "key" : "delta", timestamp, data }));
			first = false;
		}
	}

	#ready(config) {
		if (this.#decoder?.state === "configured") return;
		this.#shown = this.#given;
		const decoder = new VideoDecoder({
			output: (picture) => this.#show(picture, config),
			// The next key frame creates a new decoder.
			error: (error) => console.warn("decoder:", error.message),
		});
		decoder.configure(config);
		this.#decoder = decoder;
	}

	#show(picture, { codec }) {
		if (this.#ended) return picture.close();
		this.#seen.frames += 1;
		this.#shown = picture.timestamp;
		this.codec = codec;
		this.size = `${picture.displayWidth}×${picture.displayHeight}`;
		this.#latest?.close();
		this.#latest = picture;
		this.#drawing ||= requestAnimationFrame(() => this.#draw());
	}

	#draw() {
		this.#drawing = 0;
		const picture = this.#latest;
		this.#latest = undefined;
		if (!picture) return;
		if (this.#canvas.width !== picture.displayWidth || this.#canvas.height !== picture.displayHeight) {
			this.#canvas.width = picture.displayWidth;
			this.#canvas.height = picture.displayHeight;
		}
		this.#context.drawImage(picture, 0, 0);
		const age = performance.timeOrigin + performance.now() - picture.timestamp / 1000;
		this.latency = Math.abs(age) < CLOCK_MS ? age : undefined;
		picture.close();
	}
}
