import { type Logger, pino } from 'pino';

/** A structured logger: JSON lines on standard error, so that standard output stays for people. */
export type Log = Logger;

/** Values under these names never reach a log, wherever they stand. */
const secretNames = ['privateKey', 'passphrase', 'secret', 'token', 'authorization', 'pkcs8'];

/** Opens the log of this process. */
export function openLog(level: string): Log {
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      redact: { paths: secretNames.flatMap((name) => [name, `*.${name}`]), remove: true },
    },
    pino.destination({ dest: 2, sync: true }),
  );
}
