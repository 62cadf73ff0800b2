// The publish form, and the strip of the current publication.

import { attribute, byId, facts, text } from "./dom.js";
import { bitrate, count, duration } from "./format.js";
import { forbidden, info, known, limits, onInfo, random, suggestion } from "./info.js";
import { Publication } from "./publish.js";
import { carried } from "./relay.js";

const FACTS_MS = 500;
const ANNOUNCED = { connecting: "no session", waiting: "not yet", announced: "yes", sent: "not visible to this page", refused: "no" };

/** The publisher of the page; `watch` is called with the path that the user wants to watch. */
export class PublishForm {
	#current;
	#ticking;
	#path = byId("publish-path");
	#suggested;
	#asking = false;

	constructor(watch) {
		this.#suggest();
		onInfo(() => this.#permitted());
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

	#suggest() {
		this.#suggested = suggestion(random());
		this.#path.value = this.#suggested;
	}

	/** Shows the publish rights, and suggests another path if the suggested one is not allowed. */
	#permitted() {
		text(byId("publish-limits"), limits());
		const isNothing = known()?.permit?.publish.length === 0 || Boolean(known()?.refused);
		for (const id of ["publish-pattern", "publish-camera"]) byId(id).disabled = isNothing;
		if (this.#path.value === this.#suggested && forbidden("publish", this.#suggested) !== "") this.#suggest();
	}

	async #begin(kind) {
		const path = this.#path.value.split("/").filter(Boolean).join("/");
		if (this.#current || this.#asking || path === "") return;
		this.#asking = true;
		// Rights may have changed since the page was opened. A relay that does not answer now may answer soon.
		const found = await info().catch(() => known());
		this.#asking = false;
		const refused = forbidden("publish", path, found);
		text(byId("publish-note"), refused === "" ? "" : `Not published. ${refused}`);
		if (refused !== "" || this.#current) return;
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
		this.#suggest();
	}

	#show(live) {
		byId("publish-form").hidden = live;
		byId("publish-live").hidden = !live;
		byId("publish-limits").hidden = live;
	}

	#facts(publication) {
		const { fps, bps, groups, watched } = publication.rates();
		const { state, why } = publication.standing();
		text(byId("publish-note"), why);
		attribute(byId("publish-dot"), "data-state", state);
		facts(byId("publish-facts"), [
			["announced", ANNOUNCED[state]],
			["for", duration(publication.age)],
			["frames", `${fps.toFixed(0)} /s`],
			["encoded", bitrate(bps)],
			["groups", count(groups)],
			["codec", publication.config.codec],
			["asked for", watched ? "yes" : state === "announced" || state === "sent" ? "not yet" : "–"],
			["over", carried(publication.session)],
		]);
	}
}
