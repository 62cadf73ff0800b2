// The form and the strip of what is published from this page.

import { byId, facts, text } from "./dom.js";
import { bitrate, count, duration } from "./format.js";
import { Publication } from "./publish.js";
import { carried, trouble } from "./relay.js";

const FACTS_MS = 500;
// No letters that are taken for digits.
const LETTERS = "abcdefghijkmnpqrstuvwxyz23456789";

function suggestion() {
	const picked = crypto.getRandomValues(new Uint8Array(4));
	return `demo/${Array.from(picked, (byte) => LETTERS[byte % LETTERS.length]).join("")}`;
}

/** What publishes from the page; `watch` hears the path somebody wants to watch. */
export class PublishForm {
	#current;
	#ticking;
	#path = byId("publish-path");

	constructor(watch) {
		this.#path.value = suggestion();
		byId("publish-form").addEventListener("submit", (event) => {
			event.preventDefault();
			this.#begin("pattern");
		});
		byId("publish-camera").addEventListener("click", () => {
			if (this.#path.reportValidity()) this.#begin("camera");
		});
		byId("publish-stop").addEventListener("click", () => this.#current?.end());
		byId("publish-watch").addEventListener("click", () => watch(this.#current.path));
		addEventListener("pagehide", () => this.#current?.end());
	}

	/** Publishes the test pattern, or stops publishing. */
	toggle() {
		if (this.#current) this.#current.end();
		else byId("publish-pattern").click();
	}

	async #begin(kind) {
		if (this.#current) return;
		const path = this.#path.value.split("/").filter(Boolean).join("/");
		if (path === "") return;
		const publication = new Publication(kind, path, byId("publish-preview"), (why) => this.#ended(why));
		this.#current = publication;
		text(byId("publish-note"), kind === "camera" ? "Asking for the camera." : "");
		try {
			await publication.begin();
		} catch (error) {
			publication.end(error.message);
			return;
		}
		text(byId("publish-note"), "");
		text(byId("publish-name"), path);
		this.#show(true);
		byId("publish-watch").focus();
		this.#ticking = setInterval(() => this.#facts(publication), FACTS_MS);
		this.#facts(publication);
	}

	#ended(why = "") {
		clearInterval(this.#ticking);
		this.#current = undefined;
		text(byId("publish-note"), why);
		this.#show(false);
		this.#path.value = suggestion();
	}

	#show(live) {
		byId("publish-form").hidden = live;
		byId("publish-live").hidden = !live;
	}

	#facts(publication) {
		const { fps, bps, groups, watched } = publication.rates();
		text(byId("publish-note"), trouble(publication.session, publication.age));
		facts(byId("publish-facts"), [
			["for", duration(publication.age)],
			["frames", `${fps.toFixed(0)} /s`],
			["encoded", bitrate(bps)],
			["groups", count(groups)],
			["codec", publication.config.codec],
			["asked for", watched ? "yes" : "by nobody yet"],
			["over", carried(publication.session)],
		]);
	}
}
