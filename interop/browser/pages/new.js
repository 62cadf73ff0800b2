// Functions of a test page with `@moq/net` 0.2 and 0.3; `moq` is one of them, chosen when this is bundled.

import * as Moq from "moq";
import { block, digest, pause } from "./shared.js";

let session;
let broadcast;

async function until(signal) {
	for (;;) {
		const value = signal.peek();
		if (value) return value;
		await signal.changed();
	}
}

globalThis.client = {
	async connect(address, hash, websocket) {
		const hashes = hash && [{ algorithm: "sha-256", value: Uint8Array.from(hash.match(/../g), (pair) => Number.parseInt(pair, 16)) }];
		if (websocket) delete globalThis.WebTransport;
		session = await Moq.Connection.connect(new URL(address), {
			webtransport: hashes && { serverCertificateHashes: hashes },
			websocket: { enabled: websocket },
		});
		return { version: session.version, transport: session.transport };
	},

	/** Announces a broadcast, and writes blocks into its track once it is requested. */
	async publish(path, groups, sizes) {
		broadcast = new Moq.Broadcast.Producer();
		const track = broadcast.createTrack("data", { latencyMax: 30_000 });
		session.publish(Moq.Path.from(path), broadcast);
		await until(track.used);
		for (let number = 0; number < groups; number += 1) {
			const group = track.appendGroup();
			sizes.forEach((size, at) => group.writeFrame({ payload: block(number, at, size), timestamp: Moq.Time.Timestamp.fromMillis(number * 40 + at) }));
			group.close();
			await pause(30);
		}
		// A reader with this library drops groups in flight when a track ends.
		await pause(300);
		track.close();
	},

	/** Reads every group of a track to its end: its number and a description of each frame. */
	async subscribe(path) {
		const handle = session.announcedBroadcast(Moq.Path.from(path));
		const found = await until(handle.active);
		const track = found.track("data").subscribe({ latencyMax: 30_000 });
		const reading = [];
		for (let group = await track.recvGroup(); group; group = await track.recvGroup()) {
			const { sequence } = group;
			const read = async (from) => {
				const frames = [];
				for (let frame = await from.readFrame(); frame; frame = await from.readFrame()) frames.push(await digest(frame.payload));
				return { sequence, frames };
			};
			reading.push(read(group));
		}
		return Promise.all(reading);
	},

	async close() {
		broadcast?.close();
		await pause(200);
		session?.close();
	},
};
