// What the audit log costs (log), what it adds to an issuance (issuance), whether calls wait for it (decisions), what access logs
// cost (access-log), what it survives (kills), and what questions take: records and counts (questions), those of auditors
// (auditor), and recorded calls judged anew (replay).
// `npm run bench -- audit [log|issuance|decisions|access-log|kills|questions|auditor|replay]`.
const [part = 'log', ...options] = process.argv.slice(2);
const parts: Readonly<Record<string, () => Promise<unknown>>> = {
  log: async () => (await import('./audit/log.ts')).measureLog(),
  issuance: async () => (await import('./audit/issuance.ts')).measureIssuance(),
  decisions: async () => (await import('./audit/decisions.ts')).measureDecisions(),
  'access-log': async () => (await import('./audit/access-log.ts')).measureAccessLog(),
  kills: async () => (await import('./audit/kills.ts')).measureKills(),
  questions: async () => (await import('./audit/questions.ts')).measureQuestions(options),
  replay: async () => (await import('./audit/replay.ts')).measureReplay(options),
  auditor: async () => (await import('./audit/auditor.ts')).measureAuditor(options),
};
const measure = Object.hasOwn(parts, part) ? parts[part] : undefined;
if (measure === undefined) {
  console.error(`there is no part ${part}: ${Object.keys(parts).join(', ')}`);
  process.exit(64);
}
await measure();
