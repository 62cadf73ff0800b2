// The published web components, both in one page, selected by its address.

import "@moq/publish/element";
import "@moq/watch/element";

const asked = new URLSearchParams(location.search);
const publishes = asked.get("publish");
const watches = asked.get("watch");

if (publishes) {
	const element = document.createElement("moq-publish");
	element.append(Object.assign(document.createElement("video"), { muted: true, autoplay: true }));
	element.setAttribute("url", asked.get("url"));
	element.setAttribute("name", publishes);
	element.setAttribute("source", "camera");
	element.setAttribute("muted", "");
	document.body.append(element);
}
if (watches) {
	const element = document.createElement("moq-watch");
	element.append(Object.assign(document.createElement("canvas"), { id: "screen", width: 640, height: 360 }));
	element.setAttribute("url", asked.get("url"));
	element.setAttribute("name", watches);
	element.setAttribute("muted", "");
	element.setAttribute("visible", "always");
	document.body.append(element);
}
