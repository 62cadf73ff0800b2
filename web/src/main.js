// The page of a relay: what it serves, and the whole loop of publishing and watching over it.

import { Broadcasts } from "./broadcasts.js";
import { Detail } from "./detail.js";
import { byId, text } from "./dom.js";
import { Overview } from "./overview.js";
import { PublishForm } from "./publishing.js";
import * as route from "./route.js";
import { follow } from "./status.js";
import { theme } from "./theme.js";

const overview = new Overview();
let open = { path: null, watch: false, track: null };

const broadcasts = new Broadcasts((path) => show({ path, watch: false, track: null }));
const detail = new Detail({
	open: (change) => show({ ...open, ...change }),
	close: () => show({ path: null, watch: false, track: null }),
});
const publishing = new PublishForm((path) => show({ path, watch: true, track: null }));

/** Opens what is asked for and says so in the address. */
function show(wanted) {
	route.write(wanted);
	apply(wanted);
}

function apply(wanted) {
	const before = open;
	open = wanted;
	broadcasts.chosen = open.path;
	detail.show(open);
	if (before.path !== null && open.path === null) broadcasts.focus();
}

/** Commands that work as they stand: a certificate that the relay made itself is named. */
function hello({ address: quic, fingerprint } = {}) {
	const pinned = fingerprint ? ` --fingerprint ${fingerprint}` : "";
	// This page may be on a listener of its own.
	const address = `https://${quic ? `${location.hostname}:${quic.split(":").at(-1)}` : location.host}/`;
	text(byId("hello-pub"), `yes hello | moq-relay pub --no-wait --rate 1000 --lines ${address} demo/hello words${pinned}`);
	text(byId("hello-sub"), `moq-relay sub ${address} demo/hello words${pinned}`);
}

hello();
theme(() => overview.recolour());
addEventListener("popstate", () => apply(route.read()));
addEventListener("hashchange", () => apply(route.read()));

let heard = false;
follow(
	(state) => {
		overview.state = state;
		// Without figures there are still announcements.
		broadcasts.announced = state === "private" || state === "refused";
		if (state === "lost" && !heard) text(byId("foot"), "The relay does not answer.");
	},
	(status, isEvent) => {
		heard = true;
		text(byId("foot"), `moq-relay ${status.relay.version}`);
		hello(status.relay);
		overview.show(status, isEvent);
		broadcasts.status = status;
		detail.status = status;
	},
);

addEventListener("keydown", (event) => {
	const typing = event.target.closest?.("input, textarea, select");
	if (event.key === "Escape") {
		if (typing && typing.value !== "" && typing.id === "filter") {
			typing.value = "";
			typing.dispatchEvent(new Event("input"));
		} else if (typing) typing.blur();
		else if (open.path !== null) show({ path: null, watch: false, track: null });
		return;
	}
	if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
	if (event.key === "/") byId("filter").focus();
	else if (event.key === "w" && open.path !== null) show({ ...open, watch: !open.watch });
	else if (event.key === "p") publishing.toggle();
	else return;
	event.preventDefault();
});
byId("filter").addEventListener("keydown", (event) => {
	if (event.key !== "ArrowDown" && event.key !== "Enter") return;
	event.preventDefault();
	broadcasts.focus();
});

apply(route.read());
