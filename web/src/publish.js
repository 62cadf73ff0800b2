// Publishes the test pattern or the camera as a *hang* broadcast: a catalog, and a video track whose groups
// begin with a key frame.

import { Broadcast, Path, Time, Track } from "@moq/net";
import { CATALOG, pack } from "./hang.js";
import { allows, forbidden, known } from "./info.js";
import { draw, drawCamera } from "./pattern.js";
import { borrow, dial, each, trouble } from "./relay.js";

const FPS = 30;
const GROUP_FRAMES = 60;
const BITRATE = 1_200_000;
// Longest queue of the encoder: beyond it the machine is too slow, and frames are dropped to limit the delay.
const ENCODER_QUEUE = 3;
// Time for the end of the announcement to be sent before the session is closed.
const GOODBYE_MS = 300;
// The relay lists an announcement within milliseconds; a session for the list takes a moment more.
const LISTED_MS = 5000;

// Ordered by the number of browsers that can play it, and by the cost of encoding.
const CODECS = ["avc1.42e01e", "vp8", "vp09.00.30.08", "av01.0.04M.08"];

/** The first codec that this browser can encode. */
async function choose(width, height) {
	if (!("VideoEncoder" in globalThis)) {
		throw new Error(
			globalThis.isSecureContext
				? "This browser has no video encoder (WebCodecs); a newer Chrome, Edge, Safari or Firefox has one."
				: "Browsers encode video only on https:// pages and on localhost. Open this page at one of those to publish.",
		);
	}
	for (const codec of CODECS) {
		const config = { codec, width, height, bitrate: BITRATE, framerate: FPS, latencyMode: "realtime" };
		// Parameter sets before every key frame, so that a viewer can begin at any of them.
		if (codec.startsWith("avc1")) config.avc = { format: "annexb" };
		const { supported } = await VideoEncoder.isConfigSupported(config).catch(() => ({ supported: false }));
		if (supported) return config;
	}
	throw new Error("This browser encodes none of H.264, VP8, VP9 and AV1.");
}

/** The camera, as a playing video element. */
async function camera() {
	if (!navigator.mediaDevices?.getUserMedia) {
		throw new Error("Browsers give a camera only to https:// pages and to localhost. The test pattern may work here.");
	}
	let stream;
	try {
		stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: FPS } } });
	} catch (error) {
		const why = { NotAllowedError: "The camera was not allowed.", NotFoundError: "There is no camera here.", NotReadableError: "The camera is in use elsewhere." };
		throw new Error(why[error.name] ?? `The camera does not open: ${error.message}`, { cause: error });
	}
	const video = Object.assign(document.createElement("video"), { muted: true, playsInline: true, srcObject: stream });
	await video.play();
	return { video, stop: () => stream.getTracks().forEach((track) => track.stop()) };
}

/** Calls back `FPS` times per second, in a hidden tab as well, where timers of a page are slowed down. */
function ticker(tick) {
	const source = `setInterval(() => postMessage(0), ${1000 / FPS})`;
	const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
	const worker = new Worker(url);
	URL.revokeObjectURL(url);
	worker.onmessage = tick;
	return () => worker.terminate();
}

/** A publication. `onEnd` is called with the reason when it ends by itself. */
export class Publication {
	#canvas;
	#context;
	#onEnd;
	#source;
	#encoder;
	#group;
	#described;
	#track;
	#catalogTrack;
	#broadcast;
	#connection;
	#lease;
	#listing;
	#sentAt;
	#endings = [];
	#start = performance.now();
	#frame = 0;
	#since = { at: performance.now(), frames: 0, bytes: 0 };
	#made = { frames: 0, bytes: 0, groups: 0 };
	#ended = false;

	/** Path of the broadcast. */
	path;
	/** `pattern` or `camera`. */
	kind;
	/** Configuration of the encoder. */
	config;

	constructor(kind, path, canvas, onEnd) {
		this.kind = kind;
		this.path = path;
		this.#canvas = canvas;
		this.#context = canvas.getContext("2d", { alpha: false, desynchronized: true });
		this.#onEnd = onEnd;
	}

	/** Begins; throws an error with a message for people. */
	async begin() {
		const { width, height } = this.#canvas;
		this.config = await choose(width, height);
		if (this.kind === "camera") this.#source = await camera();
		this.#track = new Track.Producer("video").accept({ timescale: Time.Timescale.MICRO, priority: 60 });
		this.#encoder = new VideoEncoder({
			output: (chunk) => this.#encoded(chunk),
			error: (error) => this.end(`The encoder gave up: ${error.message}`),
		});
		this.#encoder.configure(this.config);
		// Its group stays open: the library drops a closed one after five seconds, and late viewers need it.
		this.#catalogTrack = new Track.Producer(CATALOG).accept({ priority: 100 });
		this.#described = this.#catalogTrack.appendGroup();
		this.#described.writeJson(this.#catalog());
		this.#connection = dial();
		this.#endings.push(each(this.#connection.established, (session) => this.#announce(session)));
		this.#endings.push(ticker(() => this.#tick()));
		// The relay's list proves that it accepted the announcement. A session is not sent its own announcements.
		this.#lease = borrow();
		this.#listing = this.#lease.connection.announcedBroadcast(Path.from(this.path));
	}

	/** Announces the tracks on a session. The library closes a broadcast with its session, so each gets its own. */
	#announce(session) {
		this.#broadcast?.close();
		this.#broadcast = undefined;
		this.#sentAt = performance.now();
		if (!session) return;
		this.#broadcast = new Broadcast.Producer();
		this.#broadcast.insertTrack(this.#track);
		this.#broadcast.insertTrack(this.#catalogTrack);
		session.publish(Path.from(this.path), this.#broadcast);
	}

	/** The session in use; undefined while there is none. */
	get session() {
		return this.#connection?.established.peek();
	}

	/**
	 * State of the announcement: `connecting`, `waiting`, `announced`, `sent` (this page may not see the list) or
	 * `refused`; and a reason for people.
	 */
	standing() {
		if (!this.session) return { state: "connecting", why: trouble(this.#connection) };
		const refused = forbidden("publish", this.path);
		if (refused !== "") return { state: "refused", why: `Not announced. ${refused}` };
		const { permit } = known() ?? {};
		if (permit && !allows(permit.subscribe, this.path)) return { state: "sent", why: "" };
		if (this.#listing?.active.peek()) return { state: "announced", why: "" };
		const unseen = trouble(this.#lease?.connection);
		if (unseen !== "") return { state: "waiting", why: `Not known to be announced. ${unseen}` };
		const waited = performance.now() - this.#sentAt;
		if (waited < LISTED_MS || !this.#lease?.connection.established.peek()) return { state: "waiting", why: "" };
		return { state: "refused", why: `Not announced: the relay was sent “${this.path}” ${Math.round(waited / 1000)} s ago and does not list it. Its log names the reason.` };
	}

	/** Figures since the last call. */
	rates() {
		const now = performance.now();
		const seconds = Math.max(0.001, (now - this.#since.at) / 1000);
		const rates = {
			fps: (this.#made.frames - this.#since.frames) / seconds,
			bps: ((this.#made.bytes - this.#since.bytes) * 8) / seconds,
			groups: this.#made.groups,
			watched: this.#track?.used.peek() ?? false,
		};
		this.#since = { at: now, frames: this.#made.frames, bytes: this.#made.bytes };
		return rates;
	}

	/** Ends the publication and its announcement. */
	end(why) {
		if (this.#ended) return;
		this.#ended = true;
		for (const ending of this.#endings) ending();
		this.#source?.stop();
		if (this.#encoder && this.#encoder.state !== "closed") this.#encoder.close();
		this.#group?.close();
		this.#described?.close();
		this.#catalogTrack?.close();
		this.#track?.close();
		this.#broadcast?.close();
		this.#listing?.close();
		this.#lease?.giveBack();
		const connection = this.#connection;
		setTimeout(() => connection?.close(), GOODBYE_MS);
		this.#onEnd(why);
	}

	#catalog() {
		const { codec, width, height } = this.config;
		const rendition = {
			codec,
			container: { kind: "legacy" },
			codedWidth: width,
			codedHeight: height,
			framerate: FPS,
			bitrate: BITRATE,
			optimizeForLatency: true,
		};
		return { video: { renditions: { video: rendition }, display: { width, height } } };
	}

	#tick() {
		if (this.#encoder.state !== "configured" || this.#encoder.encodeQueueSize > ENCODER_QUEUE) return;
		const { width, height } = this.#canvas;
		// The timestamp is the time of day, so that a viewer can show the age of a picture.
		const now = performance.timeOrigin + performance.now();
		if (this.kind === "camera") {
			if (this.#source.video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) return;
			drawCamera(this.#context, { width, height }, this.#source.video, now, this.#frame, this.path);
		} else {
			draw(this.#context, { width, height }, now, this.#frame, this.path);
		}
		const picture = new VideoFrame(this.#canvas, { timestamp: Math.round(now * 1000), duration: Math.round(1e6 / FPS) });
		this.#encoder.encode(picture, { keyFrame: this.#frame % GROUP_FRAMES === 0 });
		picture.close();
		this.#frame += 1;
	}

	#encoded(chunk) {
		if (this.#ended) return;
		if (chunk.type === "key") {
			this.#group?.close();
			this.#group = this.#track.appendGroup();
			this.#made.groups += 1;
		}
		const frame = pack(chunk);
		this.#group?.writeFrame(frame);
		this.#made.frames += 1;
		this.#made.bytes += frame.payload.byteLength;
	}

	/** Seconds since the start. */
	get age() {
		return (performance.now() - this.#start) / 1000;
	}
}
