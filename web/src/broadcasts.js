// The list of live broadcasts: from the relay's statistics, or, where those are private, from its announcements.

import { attribute, byId, text } from "./dom.js";
import { bitrate, count } from "./format.js";
import { List } from "./list.js";
import { borrow } from "./relay.js";

const HEIGHT = 30;

const total = (broadcast) => broadcast.tracks.reduce((sum, track) => sum + track.in_bps, 0);

/** The list, its filter and its order; `choose` is called with the path of a clicked row. */
export class Broadcasts {
	#list;
	#items = [];
	#known = 0;
	#most = 1;
	#sort = "path";
	#watching;
	#filter = byId("filter");

	constructor(choose) {
		this.#list = new List(byId("broadcast-list"), {
			height: HEIGHT,
			most: 16,
			cells: 3,
			label: "Live broadcasts",
			key: (item) => item.path,
			fill: (row, item) => this.#fill(row, item),
			choose: (item) => choose(item.path),
		});
		this.#filter.addEventListener("input", () => this.#draw());
		byId("broadcast-heads").addEventListener("click", (event) => {
			const { sort } = event.target.dataset;
			if (!sort) return;
			this.#sort = sort;
			for (const button of event.currentTarget.children) attribute(button, "aria-pressed", `${button.dataset.sort === sort}`);
			this.#draw();
		});
	}

	set chosen(path) {
		this.#list.chosen = path;
	}

	focus() {
		this.#list.focus();
	}

	/** Shows a snapshot of the relay. */
	set status({ broadcasts, broadcasts_total: known }) {
		this.#items = broadcasts.map(({ path, viewers, tracks }) => ({ path, viewers, bps: total({ tracks }) }));
		this.#known = known;
		this.#draw();
	}

	/** Whether announcements are the only source. */
	set announced(on) {
		if (on === Boolean(this.#watching)) return;
		if (!on) {
			this.#watching();
			this.#watching = undefined;
			return;
		}
		this.#items = [];
		const { connection, giveBack } = borrow();
		const announced = connection.announced();
		const read = async () => {
			for (let event = await announced.next(); event; event = await announced.next()) {
				this.#items = this.#items.filter((item) => item.path !== event.path);
				if (event.active) this.#items.push({ path: event.path, viewers: null, bps: null });
				this.#known = this.#items.length;
				this.#draw();
			}
		};
		read().catch(() => {});
		this.#watching = () => {
			announced.close();
			giveBack();
		};
		this.#draw();
	}

	#draw() {
		const words = this.#filter.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
		const shown = this.#items.filter((item) => words.every((word) => item.path.toLowerCase().includes(word)));
		const by = this.#sort;
		// Equal rows are ordered by path, so that they stay in place.
		shown.sort((a, b) => (by === "path" ? 0 : b[by] - a[by]) || (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
		this.#most = Math.max(1, ...shown.map((item) => item.bps ?? 0));
		this.#list.items = shown;
		const whole = this.#known > this.#items.length ? `the first ${count(this.#items.length)} of ${count(this.#known)}` : count(this.#known);
		text(byId("broadcasts-count"), words.length > 0 ? `${count(shown.length)} of ${whole}` : whole);
		const none = byId("broadcast-none");
		none.hidden = shown.length > 0;
		text(none, this.#items.length > 0 ? "No broadcast has that in its path." : "Nothing is live. “Test pattern” publishes something to watch.");
	}

	#fill(row, item) {
		const [path, viewers, rate] = row.children;
		if (path.childElementCount === 0) path.append(document.createElement("i"), document.createElement("b"));
		// The end of a path distinguishes it from its neighbours, so it stays readable.
		const cut = item.path.lastIndexOf("/") + 1;
		text(path.children[0], item.path.slice(0, cut));
		text(path.children[1], item.path.slice(cut));
		text(viewers, item.viewers === null ? "" : count(item.viewers));
		text(rate, item.bps === null ? "" : bitrate(item.bps));
		row.title = item.path;
		row.style.setProperty("--part", `${((item.bps ?? 0) / this.#most).toFixed(3)}`);
		attribute(row, "aria-label", item.viewers === null ? item.path : `${item.path}, ${count(item.viewers)} viewers, ${bitrate(item.bps)}`);
	}
}
