// What the audit log costs, and what it survives. `npm run bench -- audit [log|kills]`.
const [part = 'log'] = process.argv.slice(2);
switch (part) {
  case 'log':
    await (await import('./audit/log.ts')).measureLog();
    break;
  case 'kills':
    await (await import('./audit/kills.ts')).measureKills();
    break;
  default:
    console.error(`there is no part ${part}: log, kills`);
    process.exit(64);
}
