// Functions of a test page with `@moq/net` 0.1 and `@moq/lite`; `moq` is one of them, chosen when this is bundled.

import * as Moq from "moq";
import { block, digest, pause } from "./shared.js";

let session;
let broadcast;

globalThis.client = {
	async connect(address, _hash, websocket) {
		if (websocket) delete globalThis.WebTransport;
		session = await Moq.Connection.connect(new URL(address), { websocket: { enabled: websocket } });
		return { version: session.version, transport: websocket ? "websocket" : "webtransport" };
	},

	async publish(path, groups, sizes) {
		broadcast = new Moq.Broadcast();
		session.publish(Moq.Path.from(path), broadcast);
		const { track } = await broadcast.requested();
		for (let number = 0; number < groups; number += 1) {
			const group = track.appendGroup();
			sizes.forEach((size, at) => group.writeFrame(block(number, at, size)));
			group.close();
			await pause(30);
		}
		await pause(300);
		track.close();
	},

	async subscribe(path) {
		const announced = session.announced(Moq.Path.empty());
		for (;;) {
			const event = await announced.next();
			if (event?.active && event.path === path) break;
		}
		const track = session.consume(Moq.Path.from(path)).subscribe("data", 0);
		const reading = [];
		for (let group = await track.recvGroup(); group; group = await track.recvGroup()) {
			const { sequence } = group;
			const read = async (from) => {
				const frames = [];
				for (let frame = await from.readFrame(); frame; frame = await from.readFrame()) frames.push(await digest(frame));
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
