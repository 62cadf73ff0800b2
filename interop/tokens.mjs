#!/usr/bin/env node
// Keys and tokens, in both directions with the published `@moq/token`: its tokens are valid here, those of
// `moq-relay token` are valid there, and a token that one refuses is refused by the other.
//
//     npm ci --prefix interop/npm --ignore-scripts
//     cargo build --release
//     node interop/tokens.mjs
//
// Options: `--relay FILE` names another binary, `--modules FOLDER` the folder that has `@moq/token`,
// `--only TEXT` picks cases by name.

import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

const here = dirname(fileURLToPath(import.meta.url));
const { values: options } = parseArgs({
	options: {
		relay: { type: "string", default: join(here, "../target/release/moq-relay") },
		modules: { type: "string", default: join(here, "npm/node_modules") },
		only: { type: "string", default: "" },
	},
});
const relay = resolve(options.relay);
const theirs = resolve(options.modules, "@moq/token");
const token = await import(pathToFileURL(join(theirs, "index.js")));

const HOUR = 3600;
const now = Math.floor(Date.now() / 1000);
const folder = mkdtempSync(join(tmpdir(), "moq-tokens-"));

/** Runs a program; returns its standard output, or throws an error with its messages. */
function run(program, args, input = "") {
	const { status, stdout, stderr, error } = spawnSync(program, args, { input, encoding: "utf8" });
	if (error) throw error;
	if (status !== 0) throw new Error(`${args.join(" ")}: ${status}: ${stdout}${stderr}`.trim());
	return stdout.trim();
}

const ours = (args, input) => run(relay, ["token", ...args], input);
const cli = (args, input) => run(process.execPath, [join(theirs, "cli.js"), ...args], input);

let files = 0;

/** Writes each text to a file of its own. */
function file(text) {
	files += 1;
	const name = join(folder, `${files}`);
	writeFileSync(name, text, { mode: 0o600 });
	return name;
}

function same(found, expected, what) {
	const [a, b] = [JSON.stringify(found), JSON.stringify(expected)];
	if (a !== b) throw new Error(`${what}: ${a} instead of ${b}`);
}

async function refused(what, attempt) {
	let got;
	try {
		got = await attempt();
	} catch {
		return;
	}
	throw new Error(`${what} was accepted: ${JSON.stringify(got)}`);
}

/** The relay binary's description of a valid token. */
function holds(key, jwt) {
	const said = JSON.parse(ours(["verify", "--json", "--key", key], jwt));
	same(said.holds, true, "holds");
	return said;
}

/** Checks their claims in our terms. */
function check(said, root, put, get, exp) {
	const absolute = (list) => list.map((path) => [root, path, "**"].filter((part) => part !== "").join("/")).sort();
	same([said.root, said.expires ?? null], [root, exp ?? null], "root and end");
	same(said.publish.toSorted(), absolute(put), "publish");
	same(said.subscribe.toSorted(), absolute(get), "subscribe");
}

const made = new Map();

/** Keys of both sides, in all encodings; made once for each algorithm. */
async function makers(algorithm) {
	if (!made.has(algorithm)) made.set(algorithm, await make(algorithm));
	return made.get(algorithm);
}

async function make(algorithm) {
	const symmetric = algorithm.startsWith("HS");
	const generated = await token.generate(algorithm, "theirs-1");
	const theirFile = join(folder, `cli-${algorithm}`);
	const theirPublic = join(folder, `cli-public-${algorithm}`);
	const halves = symmetric ? [] : ["--public", theirPublic];
	cli(["generate", "--algorithm", algorithm, "--key", theirFile, "--base64", ...halves]);
	const ourFile = join(folder, `ours-${algorithm}`);
	const ourPublic = join(folder, `ours-public-${algorithm}`);
	const ourHalves = symmetric ? [] : ["--public", ourPublic];
	ours(["generate", "--algorithm", algorithm, "--id", "ours_1", "--out", ourFile, ...ourHalves]);
	const encoded = ours(["generate", "--algorithm", algorithm, "--base64"]);
	const library = {
		name: "a key of its library",
		secret: file(JSON.stringify(generated)),
		public: symmetric ? undefined : file(JSON.stringify(token.toPublicKey(generated))),
	};
	const pair = (name, secret, half) => ({ name, secret, public: symmetric ? undefined : half });
	return [
		library,
		pair("a key of its command line", theirFile, theirPublic),
		pair("our key", ourFile, ourPublic),
		pair("our key in base64url", file(encoded)),
	].map((key) => ({ ...key, symmetric }));
}

const read = (name) => readFileSync(name, "utf8");

/** The key in the form of their verifier: the public half, where there is one. */
function verifier(key) {
	const text = read(key.public ?? key.secret);
	return key.symmetric ? token.load(text) : token.loadPublic(text);
}

const cases = [];
const add = (name, test) => cases.push({ name, test });

for (const algorithm of token.AlgorithmSchema.options) {
	add(`${algorithm}: their token holds here`, async () => {
		for (const key of await makers(algorithm)) {
			const exp = now + HOUR;
			const claims = { root: "room/1", put: "alice", get: ["", "bob"], exp, iat: now };
			const jwt = await token.sign(token.load(read(key.secret)), claims);
			for (const half of [key.secret, key.public].filter(Boolean)) {
				// A grant below the root covers everything below it.
				check(holds(half, jwt), "room/1", ["alice"], [""], exp);
			}
			const signed = cli(["sign", "--key", key.secret, "--root", "r", "--publish", "a", "b", "--expires", `${exp}`]);
			check(holds(key.public ?? key.secret, signed), "r", ["a", "b"], [], exp);
		}
	});

	add(`${algorithm}: our token holds there`, async () => {
		for (const key of await makers(algorithm)) {
			const exp = now + HOUR;
			const grants = ["--root", "room/1", "--publish", "alice", "--subscribe", "", "--subscribe", "bob"];
			const jwt = ours(["sign", "--key", key.secret, ...grants, "--expires", `${exp}`, "--issued", `${now}`]);
			const claims = await token.verify(verifier(key), jwt, "room/1");
			same([claims.root, claims.put, claims.get], ["room/1", ["alice"], ["", "bob"]], key.name);
			same([claims.exp, claims.iat], [exp, now], key.name);
			cli(["verify", "--key", key.public ?? key.secret, "--root", "room/1"], jwt);
			const everywhere = ours(["sign", "--key", key.secret, "--publish", "", "--expires", "1h"]);
			same((await token.verify(verifier(key), everywhere, "")).put, [""], key.name);
		}
	});

	add(`${algorithm}: what one refuses the other refuses`, async () => {
		const [one, , other] = await makers(algorithm);
		const key = token.load(read(one.secret));
		const good = await token.sign(key, { root: "", get: "", exp: now + HOUR });
		const old = await token.sign(key, { root: "", get: "", exp: now - HOUR });
		const [head, payload, signature] = good.split(".");
		const wider = Buffer.from(JSON.stringify({ root: "", put: "", get: "" })).toString("base64url");
		const none = Buffer.from(JSON.stringify({ alg: "none" })).toString("base64url");
		const bad = {
			old,
			"other claims": [head, wider, signature].join("."),
			"no signature": [head, payload, ""].join("."),
			"no algorithm": [none, payload, ""].join("."),
			"half a signature": [head, payload, signature.slice(0, 20)].join("."),
		};
		for (const [what, jwt] of Object.entries(bad)) {
			await refused(`${what} there`, () => token.verify(verifier(one), jwt, ""));
			await refused(`${what} here`, () => ours(["verify", "--key", one.secret], jwt));
		}
		await refused("another key there", () => token.verify(verifier(other), good, ""));
		await refused("another key here", () => ours(["verify", "--key", other.secret], good));
		holds(one.secret, good);
		await token.verify(verifier(one), good, "");
	});
}

add("a key in which nothing is said of its kind", async () => {
	const { alg, k } = await token.generate("HS256");
	const old = JSON.stringify({ alg, k, key_ops: ["sign", "verify"] });
	const jwt = await token.sign(token.load(old), { root: "a", get: "b" });
	check(holds(file(old), jwt), "a", [], ["b"]);
	await token.verify(token.load(old), ours(["sign", "--key", file(old), "--put", "x"]), "");
});

add("a pattern is refused there, not misread", async () => {
	const key = file(ours(["generate"]));
	const jwt = ours(["sign", "--key", key, "--root", "room", "--publish", "*/cam", "--subscribe", ""]);
	same(holds(key, jwt).publish, ["room/*/cam"], "publish");
	await refused("a pattern", () => token.verify(token.load(read(key)), jwt, "room"));
});

// Their verifier of this version accepts the token's root as the only path.
add("a path above, at, below and beside the root of their token", async () => {
	const key = file(ours(["generate"]));
	const jwt = await token.sign(token.load(read(key)), { root: "a/b", put: "c" });
	await token.verify(token.load(read(key)), jwt, "a/b");
	for (const path of ["", "a", "a/b", "/a/b/", "a/b/c", "a/b/c/d"]) {
		ours(["verify", "--key", key, "--path", path], jwt);
	}
	for (const path of ["a/bc", "a/b/x", "x", "A/b"]) {
		await refused(path, () => ours(["verify", "--key", key, "--path", path], jwt));
	}
});

let passed = 0;
let failed = 0;
for (const { name, test } of cases.filter((one) => one.name.includes(options.only))) {
	try {
		await test();
		passed += 1;
		console.log(`ok      ${name}`);
	} catch (error) {
		failed += 1;
		console.log(`FAILED  ${name}\n        ${error.message}`);
	}
}
rmSync(folder, { recursive: true });
console.log(`tokens: ${passed} passed, ${failed} failed`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
