// One broadcast: its tracks, the groups of one of them, and its picture.

import { attribute, byId, facts, text } from "./dom.js";
import { bitrate, bytes, count, duration, millis } from "./format.js";
import { Groups, tracks } from "./inspect.js";
import { List } from "./list.js";
import { clock } from "./pattern.js";
import { carried } from "./relay.js";
import * as route from "./route.js";
import { snapshot } from "./status.js";
import { Player } from "./watch.js";

const FACTS_MS = 500;
const unknown = (name) => ({ name, viewers: 0, in_bps: 0, groups: 0, frames: 0, bytes: 0, latest_group: null, cached_groups: 0, cached_bytes: 0, known: false });

/** The pane beside the list. `open` is called after a change of the selection, `close` when the pane has to be closed. */
export class Detail {
	#open = { path: null, watch: false, track: null };
	#found = null;
	#named = [];
	#giveUp;
	#player;
	#note = "";
	#groups;
	#ticking;
	#list;

	constructor({ open, close }) {
		this.#list = new List(byId("track-list"), {
			height: 28,
			most: 10,
			cells: 5,
			label: "Tracks",
			key: (item) => item.name,
			fill: (row, item) => this.#fill(row, item),
			choose: (item) => open({ track: item.name }),
		});
		byId("detail-watch").addEventListener("click", () => open({ watch: !this.#open.watch }));
		byId("detail-close").addEventListener("click", close);
		byId("detail-share").addEventListener("click", (event) => this.#share(event.currentTarget));
		byId("track-form").addEventListener("submit", (event) => {
			event.preventDefault();
			const name = byId("track-name").value.trim();
			if (name !== "") open({ track: name });
		});
	}

	/** Shows the current selection. */
	show(open) {
		const before = this.#open;
		this.#open = open;
		const section = byId("detail");
		section.hidden = open.path === null;
		byId("hello").hidden = open.path !== null;
		if (open.path !== before.path) this.#broadcast(before.path === null);
		if (open.path !== before.path || open.watch !== before.watch) this.#watch();
		if (open.path !== before.path || open.track !== before.track) this.#track();
		this.#list.chosen = open.track;
	}

	/** Shows a snapshot of the relay. */
	set status({ broadcasts, broadcasts_total: known }) {
		const { path } = this.#open;
		if (path === null) return;
		const found = broadcasts.find((one) => one.path === path);
		if (found || known <= broadcasts.length) return this.#update(found);
		// A broadcast beyond the end of the list is requested by name.
		snapshot({ path }).then(
			(status) => path === this.#open.path && this.#update(status.broadcasts.find((one) => one.path === path)),
			() => {},
		);
	}

	#update(found) {
		this.#found = found ?? null;
		const parts = [];
		if (!found) parts.push("not live");
		else {
			if (found.age_s !== null) parts.push(`live for ${duration(found.age_s)}`);
			parts.push(`${count(found.viewers)} viewer${found.viewers === 1 ? "" : "s"}`);
			if (found.publisher) parts.push(`published by session ${found.publisher}`);
		}
		text(byId("detail-facts"), parts.join("  ·  "));
		this.#draw();
	}

	#broadcast(fresh) {
		this.#giveUp?.();
		this.#giveUp = undefined;
		this.#named = [];
		this.#found = null;
		const { path } = this.#open;
		if (path === null) return;
		text(byId("detail-title"), path);
		text(byId("detail-facts"), "");
		this.#draw();
		this.#giveUp = tracks(path, (named) => {
			this.#named = named;
			this.#draw();
		});
		// Below the list, the pane would open out of sight.
		if (fresh && byId("detail").getBoundingClientRect().top > innerHeight * 0.7) byId("detail").scrollIntoView({ block: "start" });
	}

	#draw() {
		const known = (this.#found?.tracks ?? []).map((track) => ({ ...track, known: true }));
		const names = new Set(known.map((track) => track.name));
		const others = this.#named.filter(({ name }) => !names.has(name)).map(({ name }) => unknown(name));
		this.#list.items = [...known, ...others];
		const video = this.#named.some((track) => track.video);
		byId("detail-watch").disabled = !video && this.#named.length > 0 && !this.#open.watch;
	}

	#fill(row, track) {
		const cells = [
			track.name,
			track.known ? count(track.viewers) : "–",
			track.known ? bitrate(track.in_bps) : "–",
			track.known ? count(track.groups) : "–",
			track.known ? `${count(track.cached_groups)} · ${bytes(track.cached_bytes)}` : "–",
		];
		cells.forEach((value, at) => text(row.children[at], value));
		row.title = track.known ? `${track.name}: ${count(track.frames)} frames, ${bytes(track.bytes)}, newest group ${track.latest_group ?? "–"}` : `${track.name}: in the catalog, asked for by nobody yet`;
		attribute(row, "aria-label", track.known ? `${track.name}, ${track.viewers} viewers, ${bitrate(track.in_bps)}` : track.name);
	}

	#track() {
		this.#groups?.end();
		this.#groups = undefined;
		const { path, track } = this.#open;
		byId("groups").hidden = path === null || track === null;
		if (byId("groups").hidden) return;
		text(byId("groups-title"), track);
		this.#groups = new Groups(path, track, byId("group-list"), (note) => text(byId("groups-note"), note));
	}

	#watch() {
		this.#player?.end();
		this.#player = undefined;
		clearInterval(this.#ticking);
		const { path, watch } = this.#open;
		const playing = path !== null && watch;
		byId("watch").hidden = !playing;
		text(byId("detail-watch"), playing ? "Stop watching" : "Watch");
		byId("detail-watch").classList.toggle("primary", !playing);
		if (!playing) return;
		const canvas = byId("watch-canvas");
		canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
		facts(byId("watch-facts"), []);
		const player = new Player(path, canvas, (note) => {
			this.#note = note;
			this.#say(note);
		});
		this.#player = player;
		this.#ticking = setInterval(() => this.#facts(player), FACTS_MS);
		byId("watch").scrollIntoView({ block: "nearest" });
	}

	/** Shows a note over the picture. */
	#say(note) {
		text(byId("watch-note"), note);
		byId("watch-note").hidden = note === "";
	}

	#facts(player) {
		const { fps, bps, groups } = player.rates();
		// Without a session there is nothing else to show.
		this.#say(player.trouble || this.#note);
		const latency = player.latency;
		// The clocks of two machines may differ by more than the delay of the picture.
		const late = player.size === "" ? "–" : latency === undefined ? "unknown: the publisher's timestamps are no times of day" : latency < 0 ? "clocks differ" : `${Math.round(latency)} ms`;
		facts(byId("watch-facts"), [
			["latency", late],
			["clock here", clock(Date.now())],
			["picture", player.size || "–"],
			["codec", player.codec || "–"],
			["frames", `${fps.toFixed(0)} /s`],
			["bitrate", bitrate(bps)],
			["groups", count(groups)],
			["over", carried(player.session)],
		]);
		byId("watch").dataset.latency = latency === undefined ? "" : millis(latency);
		byId("watch").dataset.fps = fps.toFixed(1);
	}

	async #share(button) {
		const address = route.share(this.#open.path);
		try {
			await navigator.clipboard.writeText(address);
			text(button, "Copied");
		} catch {
			// Without a clipboard the address is shown, to be copied by hand.
			prompt("The address", address);
		}
		setTimeout(() => text(button, "Copy link"), 1500);
	}
}
