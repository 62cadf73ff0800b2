// Dark or light theme: that of the system, or the user's choice.

import { attribute, byId, text } from "./dom.js";

const NAMES = ["auto", "light", "dark"];
const KEY = "relay-theme";

// Storage may be forbidden; the choice then lasts as long as the page.
const kept = {
	get() {
		try {
			return localStorage.getItem(KEY);
		} catch {
			return null;
		}
	},
	set(name) {
		try {
			localStorage.setItem(KEY, name);
		} catch {}
	},
};

/** Connects the button; `changed` is called whenever the colours may have changed. */
export function theme(changed) {
	const button = byId("theme");
	const apply = (name) => {
		if (name === "auto") delete document.documentElement.dataset.theme;
		else document.documentElement.dataset.theme = name;
		text(button, name);
		attribute(button, "aria-label", `Colours: ${name === "auto" ? "as the system" : name}`);
		changed();
	};
	let current = NAMES.includes(kept.get()) ? kept.get() : "auto";
	apply(current);
	button.addEventListener("click", () => {
		current = NAMES[(NAMES.indexOf(current) + 1) % NAMES.length];
		kept.set(current);
		apply(current);
	});
	matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
}
