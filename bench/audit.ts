// What the audit log costs (log), what it adds to an issuance (issuance), whether calls wait for it (decisions), and what it
// survives (kills). `npm run bench -- audit [log|issuance|decisions|kills]`.
const [part = 'log'] = process.argv.slice(2);
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
  default:
    console.error(`there is no part ${part}: log, issuance, decisions, kills`);
    process.exit(64);
}
