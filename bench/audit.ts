// What the audit log costs (log), what it adds to an issuance (issuance), whether calls wait for it (decisions), what access logs
// cost (access-log), what it survives (kills), and what questions take (questions).
// `npm run bench -- audit [log|issuance|decisions|access-log|kills|questions]`.
const [part = 'log', ...options] = process.argv.slice(2);
switch (part) {
  case 'log':
    await (await import('./audit/log.ts')).measureLog();
    break;
  case 'issuance':
    await (await import('./audit/issuance.ts')).measureIssuance();
    break;
  case 'decisions':
    await (await import('./audit/decisions.ts')).measureDecisions();
    break;
  case 'kills':
    await (await import('./audit/kills.ts')).measureKills();
    break;
  case 'access-log':
    await (await import('./audit/access-log.ts')).measureAccessLog();
    break;
  case 'questions':
    (await import('./audit/questions.ts')).measureQuestions(options);
    break;
  default:
    console.error(`there is no part ${part}: log, issuance, decisions, access-log, kills, questions`);
    process.exit(64);
}
