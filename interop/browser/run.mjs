#!/usr/bin/env node
// The relay with a real browser: published client libraries and web components, and the relay's own page.
//
//     npm ci --prefix interop/browser --ignore-scripts
//     cargo build --release
//     node interop/browser/run.mjs
//
// Options: `--relay FILE` names another binary, `--chromium FILE` another browser, `--only TEXT` picks cases by
// name, `--screenshot FILE` also writes the picture of the page that the README shows, `--media FILE` one of
// the web components.

import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { clients, components } from "./clients.mjs";
import { configuration } from "./configured.mjs";
import { Relay, Suite } from "./harness.mjs";
import { origins } from "./origins.mjs";
import { page } from "./page.mjs";
import { restart } from "./restart.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const { values: options } = parseArgs({
	options: {
		relay: { type: "string", default: join(here, "../../target/release/moq-relay") },
		chromium: { type: "string", default: "/usr/bin/chromium" },
		only: { type: "string", default: "" },
		screenshot: { type: "string" },
		media: { type: "string" },
	},
});

const suite = new Suite(options.only);
const relay = await new Relay(resolve(options.relay)).start();
await suite.start(options.chromium);
await clients(suite, relay);
await components(suite, relay, options.media);
await origins(suite, resolve(options.relay));
await page(suite, relay, options.screenshot);
await configuration(suite, resolve(options.relay), relay);
await restart(suite, resolve(options.relay));
await suite.stop();
await suite.case("the relay ends well on SIGTERM", () => relay.stop());
if (suite.failed > 0) console.log(`--- last lines of the relay\n${relay.output.split("\n").slice(-20).join("\n")}---`);
console.log(`browser: ${suite.passed} passed, ${suite.failed} failed`);
process.exit(suite.failed === 0 && suite.passed > 0 ? 0 : 1);
