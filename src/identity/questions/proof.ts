import { answerTable, findings } from './answer.ts';
import { readEvent } from './event-fields.ts';
import { window } from './parameter.ts';
import { windowOf } from './ports.ts';
import { defineQuestion } from './question.ts';

/** How to verify, without trusting this server, that the log is whole and unchanged. */
export const proof = defineQuestion({
  name: 'proof',
  line: 'what proves that the log is complete and unchanged, and how to verify it elsewhere',
  parameters: { ...window },
  find: async (asked, { read, logKey }) => {
    const [first, last, key] = await Promise.all([
      read({ ...windowOf(asked), order: 'oldest', limit: 1 }),
      read({ ...windowOf(asked), order: 'newest', limit: 1 }),
      logKey(),
    ]);
    const from = first.rows.map(readEvent)[0];
    const to = last.rows.map(readEvent)[0];
    const { size } = last.head;
    return findings({
      says: [
        from === undefined || to === undefined
          ? 'the log has no record of that time'
          : `records of that time are entries ${from.index} to ${to.index} of ${size}; the head covers all of them`,
        'every entry is hashed anew by whoever verifies; neither the server nor its database is trusted, only the key',
      ],
      missing: ['that what was recorded is true, and that what happened was recorded: no log proves that'],
      tables: [
        answerTable(
          'covered',
          ['index', 'time', 'what'],
          [
            ...(from === undefined ? [] : [{ index: from.index, time: from.time, what: 'first record' }]),
            ...(to === undefined ? [] : [{ index: to.index, time: to.time, what: 'last record' }]),
          ],
        ),
        answerTable(
          'verify',
          ['index', 'step', 'command'],
          [
            ['the key, as it is now; compare it with the one you wrote down', 'audit key'],
            ['take all of the log away', 'audit export ./export --key log.key'],
            ['verify it there, offline', 'audit verify ./export --key log.key'],
            [
              'nothing was taken back since an older checkpoint',
              'audit verify --key log.key --since checkpoint.last',
            ],
            ['one entry', `audit prove ${to?.index ?? 0} --out entry.tlog-proof`],
            ['verify that proof, offline', 'audit verify --proof entry.tlog-proof --key log.key'],
          ].map(([step = '', command = '']) => ({ index: null, step, command: `countersign ${command}` })),
        ),
        answerTable('key', ['index', 'key'], key === null ? [] : [{ index: null, key }]),
      ],
    });
  },
});
