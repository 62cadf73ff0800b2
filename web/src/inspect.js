// The contents of a track, group by group, as they arrive; and the tracks in a catalog.

import { Path } from "@moq/net";
import { element, text } from "./dom.js";
import { bytes, count, millis } from "./format.js";
import { CATALOG, catalogs } from "./hang.js";
import { borrow, each } from "./relay.js";

const SHOWN = 24;
const REDRAW_MS = 100;

/**
 * Reads the names of the tracks in a broadcast's catalog once, so that no subscription remains.
 * `onTracks` is called with `{ name, video }` for each; not at all without a catalog. Returns a function that cancels.
 */
export function tracks(path, onTracks) {
	const { connection, giveBack } = borrow();
	const handle = connection.announcedBroadcast(Path.from(path));
	let subscription;
	let ended = false;
	const stop = each(handle.active, (broadcast) => {
		if (!broadcast || ended || subscription) return;
		subscription = broadcast.track(CATALOG).subscribe({ priority: 100 });
		read(subscription).then(end, end);
	});
	const read = async (from) => {
		for await (const catalog of catalogs(from)) {
			if (ended) return;
			const names = (section, video) => Object.keys(catalog[section]?.renditions ?? {}).map((name) => ({ name, video }));
			onTracks([{ name: CATALOG, video: false }, ...names("video", true), ...names("audio", false)]);
			return;
		}
	};
	function end() {
		if (ended) return;
		ended = true;
		// The first call is made from within the subscription that `stop` ends.
		queueMicrotask(() => stop());
		subscription?.close();
		handle.close();
		giveBack();
	}
	return end;
}

/** Shows the groups of a track as they arrive. */
export class Groups {
	#list;
	#onNote;
	#lease = borrow();
	#handle;
	#stop;
	#subscription;
	#groups = [];
	#most = 1;
	#timer;
	#over = false;
	#ended = false;

	constructor(path, track, list, onNote) {
		this.#list = list;
		this.#onNote = onNote;
		list.replaceChildren();
		onNote("waiting for the broadcast");
		this.#handle = this.#lease.connection.announcedBroadcast(Path.from(path));
		this.#stop = each(this.#handle.active, (broadcast) => this.#open(broadcast, track));
		this.#timer = setInterval(() => this.#draw(), REDRAW_MS);
	}

	end() {
		this.#ended = true;
		clearInterval(this.#timer);
		this.#stop?.();
		this.#subscription?.close();
		this.#handle.close();
		this.#lease.giveBack();
	}

	#open(broadcast, track) {
		this.#subscription?.close();
		this.#subscription = undefined;
		if (this.#ended) return;
		if (!broadcast) {
			if (this.#groups.length > 0) this.#onNote("the broadcast has ended");
			return;
		}
		this.#over = false;
		this.#onNote("subscribed; waiting for a group");
		const subscription = broadcast.track(track).subscribe({ priority: 0, latencyMax: 2000 });
		this.#subscription = subscription;
		this.#read(subscription).then(
			() => this.#end(subscription, "the track has ended"),
			(error) => this.#end(subscription, `the track broke off: ${error.message}`),
		);
	}

	#end(subscription, note) {
		if (subscription !== this.#subscription || this.#ended) return;
		this.#over = true;
		this.#onNote(note);
	}

	async #read(subscription) {
		for (let group = await subscription.recvGroup(); group; group = await subscription.recvGroup()) {
			if (this.#ended) return;
			const now = performance.now();
			const before = this.#groups[0]?.at;
			const shown = { sequence: group.sequence, at: now, gap: before === undefined ? null : now - before, frames: 0, bytes: 0, state: "open" };
			this.#groups.unshift(shown);
			this.#groups.length = Math.min(this.#groups.length, SHOWN);
			this.#count(group, shown);
		}
	}

	async #count(group, shown) {
		try {
			for (let frame = await group.readFrame(); frame; frame = await group.readFrame()) {
				shown.frames += 1;
				shown.bytes += frame.payload.byteLength;
			}
			shown.state = "whole";
		} catch {
			shown.state = "broken";
		}
	}

	#draw() {
		const list = this.#list;
		if (this.#groups.length > 0 && this.#subscription && !this.#over) this.#onNote(`newest ${millis(performance.now() - this.#groups[0].at)} ago`);
		this.#most = Math.max(1, ...this.#groups.map((group) => group.bytes));
		while (list.children.length < this.#groups.length) {
			const bar = element("span", { className: "meter" }, element("i"));
			list.append(element("li", {}, element("span"), bar, element("span"), element("span"), element("span")));
		}
		this.#groups.forEach((group, at) => {
			const row = list.children[at];
			const [sequence, bar, size, frames, gap] = row.children;
			row.dataset.state = group.state;
			text(sequence, `${group.sequence}`);
			bar.firstElementChild.style.transform = `scaleX(${group.bytes / this.#most})`;
			text(size, bytes(group.bytes));
			text(frames, count(group.frames));
			const since = group.gap ?? 0;
			text(gap, group.gap === null ? "–" : millis(since));
		});
	}
}
