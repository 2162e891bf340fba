// The protocol's own tests of servers, against the one whose address FLOWTRIO_SITE is.
import { runConformanceTests } from "@durable-streams/server-conformance-tests";

runConformanceTests({ baseUrl: process.env.FLOWTRIO_SITE, longPollTimeoutMs: 1000 });
