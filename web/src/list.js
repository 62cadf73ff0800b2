// A list of any length in which only the visible rows are elements: a thousand rows cost as much as thirty.

import { attribute, element } from "./dom.js";

let lists = 0;

/**
 * `options`: `height` of a row in pixels, `most` visible rows, `key(item)`, `fill(row, item)`, `label` for screen
 * readers, and, if rows can be selected, `choose(item)`. Without it, the list is a read-only table.
 */
export class List {
	#root;
	#inner;
	#options;
	#items = [];
	#rows = [];
	#active = null;
	#chosen = null;
	#id = `list-${++lists}`;

	constructor(root, options) {
		this.#root = root;
		this.#options = options;
		this.#inner = root.appendChild(element("div", { className: "inner" }));
		root.tabIndex = 0;
		attribute(root, "role", options.choose ? "listbox" : "table");
		attribute(root, "aria-label", options.label);
		this.#inner.setAttribute("role", options.choose ? "presentation" : "rowgroup");
		root.addEventListener("scroll", () => this.#draw(), { passive: true });
		new ResizeObserver(() => this.#draw()).observe(root);
		if (!options.choose) return;
		root.addEventListener("keydown", (event) => this.#key(event));
		root.addEventListener("focus", () => this.#draw());
		root.addEventListener("blur", () => this.#draw());
		root.addEventListener("click", (event) => {
			const row = event.target.closest("[data-at]");
			if (row) this.#choose(Number(row.dataset.at));
		});
	}

	/** The items, in their order. */
	set items(items) {
		this.#items = items;
		const { height, most } = this.#options;
		this.#inner.style.height = `${items.length * height}px`;
		this.#root.style.height = `${Math.max(1, Math.min(items.length, most)) * height}px`;
		this.#root.classList.toggle("empty", items.length === 0);
		this.#draw();
	}

	/** The key of the item that is open. */
	set chosen(key) {
		this.#chosen = key;
		if (key !== null) this.#active = key;
		this.#draw();
	}

	focus() {
		this.#root.focus();
		if (this.#at() === -1) this.#move(0);
	}

	#at() {
		return this.#items.findIndex((item) => this.#options.key(item) === this.#active);
	}

	#choose(at) {
		const item = this.#items[at];
		if (item === undefined) return;
		this.#active = this.#options.key(item);
		this.#options.choose(item);
	}

	#move(to) {
		if (this.#items.length === 0) return;
		const at = Math.max(0, Math.min(to, this.#items.length - 1));
		this.#active = this.#options.key(this.#items[at]);
		const { height } = this.#options;
		const { scrollTop, clientHeight } = this.#root;
		if (at * height < scrollTop) this.#root.scrollTop = at * height;
		if ((at + 1) * height > scrollTop + clientHeight) this.#root.scrollTop = (at + 1) * height - clientHeight;
		this.#draw();
	}

	#key(event) {
		const page = Math.max(1, Math.floor(this.#root.clientHeight / this.#options.height) - 1);
		const at = this.#at();
		const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: this.#items.length - 1 }[event.key];
		if (event.ctrlKey || event.metaKey || event.altKey) return;
		if (to !== undefined) this.#move(to);
		else if (event.key === "Enter" || event.key === " ") this.#choose(at);
		else return;
		event.preventDefault();
	}

	#draw() {
		const { height, key, fill, choose } = this.#options;
		const first = Math.max(0, Math.floor(this.#root.scrollTop / height) - 2);
		const last = Math.min(this.#items.length, Math.ceil((this.#root.scrollTop + this.#root.clientHeight) / height) + 2);
		while (this.#rows.length < last - first) this.#rows.push(this.#inner.appendChild(this.#row()));
		this.#rows.forEach((row, index) => {
			const at = first + index;
			row.hidden = at >= last;
			if (row.hidden) return;
			const item = this.#items[at];
			row.style.transform = `translateY(${at * height}px)`;
			row.dataset.at = `${at}`;
			row.id = `${this.#id}-${at}`;
			fill(row, item);
			if (!choose) return;
			attribute(row, "aria-setsize", `${this.#items.length}`);
			attribute(row, "aria-posinset", `${at + 1}`);
			attribute(row, "aria-selected", `${key(item) === this.#chosen}`);
			row.classList.toggle("active", key(item) === this.#active && document.activeElement === this.#root);
		});
		if (!choose) return;
		const at = this.#at();
		if (at >= first && at < last) attribute(this.#root, "aria-activedescendant", `${this.#id}-${at}`);
		else this.#root.removeAttribute("aria-activedescendant");
	}

	#row() {
		const row = element("div", { className: "row" });
		row.style.height = `${this.#options.height}px`;
		row.setAttribute("role", this.#options.choose ? "option" : "row");
		for (let at = 0; at < this.#options.cells; at += 1) {
			const cell = row.appendChild(element("span"));
			if (!this.#options.choose) cell.setAttribute("role", "cell");
		}
		return row;
	}
}
