// Reads [{"name", "language", "text"}] from stdin and prints one line per syntax error.
// Exit code: 0 if all queries parse, else 1.
import { text } from "node:stream/consumers";

import { parser as logql } from "@grafana/lezer-logql";
import { parser as traceql } from "@grafana/lezer-traceql";
import { parser as promql } from "@prometheus-io/lezer-promql";

const parsers = { logql, promql, traceql };

for (const query of JSON.parse(await text(process.stdin))) {
  parsers[query.language].parse(query.text).iterate({
    enter(node) {
      if (node.type.isError) {
        const rest = query.text.slice(node.from) || "end of query";
        console.log(`${query.name}: ${query.language} syntax error at ${node.from}, before: ${rest}`);
        process.exitCode = 1;
      }
    },
  });
}
