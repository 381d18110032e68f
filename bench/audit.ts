import { measureLog } from './audit/log.ts';

// What the audit log costs: appending to it and proving it. `npm run bench -- audit [log]`.
const [part = 'log'] = process.argv.slice(2);
if (part !== 'log') {
  console.error(`there is no part ${part}: log`);
  process.exit(64);
}
await measureLog();
