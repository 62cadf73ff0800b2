// Helpers of this page for the DOM.

/** The element with this id; the page is broken without it. */
export function byId(id) {
	const found = document.getElementById(id);
	if (!found) throw new Error(`no #${id}`);
	return found;
}

/** An element with properties and children. */
export function element(tag, properties = {}, ...children) {
	const made = Object.assign(document.createElement(tag), properties);
	made.append(...children);
	return made;
}

/** Sets text if it differs, to avoid needless layout. */
export function text(node, value) {
	if (node.textContent !== value) node.textContent = value;
}

/** Sets an attribute if it differs. */
export function attribute(node, name, value) {
	if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

/** Fills a `dl` with pairs, keeping the elements that are there. */
export function facts(list, pairs) {
	while (list.children.length > pairs.length) list.lastElementChild.remove();
	pairs.forEach(([name, value], at) => {
		const row = list.children[at] ?? list.appendChild(element("div", {}, element("dt"), element("dd")));
		text(row.children[0], name);
		text(row.children[1], value);
	});
}
