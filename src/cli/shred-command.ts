import { Command, InvalidArgumentError } from 'commander';
import type { ShredView } from '../http/shred-routes.ts';
import { MeshError } from '../errors.ts';
import { examples } from './help.ts';
import { clientOf, print, type Session } from './session.ts';
import { formatPairs, printable } from './text.ts';

type ShredOptions = {
  readonly address?: string;
  readonly subject?: string;
  readonly index?: readonly number[];
  readonly before?: string;
  readonly reason: string;
  readonly dryRun?: boolean;
};

/** `countersign audit shred`. */
export function shredCommand(session: Session): Command {
  return new Command('shred')
    .description('forget paths and addresses for good; the entries stay, and so do all proofs')
    .option('--address <address>', 'of entries with this source address, whatever the port')
    .option('--subject <id>', 'of entries about or by this SPIFFE ID, or by this subject of an ID token')
    .option('--index <index>', 'of this entry; may be repeated', addIndex)
    .option('--before <time>', 'of entries older than this: 30d, or RFC 3339')
    .requiredOption('--reason <text>', 'why: it is recorded, so name no person')
    .option('--dry-run', 'count, and shred nothing')
    .addHelpText(
      'after',
      examples(
        "audit shred --address 192.0.2.7 --dry-run --reason 'request 4711'",
        "audit shred --address 192.0.2.7 --reason 'request 4711'",
        "audit shred --before 90d --reason 'end of the quarter'",
      ),
    )
    .action(async (options: ShredOptions, command: Command) => {
      const { address, subject, index, before } = options;
      if ([address, subject, index, before].every((given) => given === undefined)) {
        throw new MeshError('usage', 'nothing says which values are meant', {
          fix: 'give --address, --subject, --index or --before; all that is given must hold',
        });
      }
      const client = clientOf(session, command);
      let done: ShredView = { entries: 0, values: 0, next: 0, erased: true, oldCopies: [] };
      while (done.next !== null) {
        const step: ShredView = await client.post('/v1/audit/shred', { ...options, from: done.next });
        done = {
          ...step,
          entries: done.entries + step.entries,
          values: done.values + step.values,
          oldCopies: [...new Set([...done.oldCopies, ...step.oldCopies])],
        };
      }
      const { entries, values, erased, oldCopies } = done;
      const isDry = options.dryRun === true;
      if (!erased && !isDry && values > 0) {
        session.say(
          'warning: somebody reads the log; copies stay in the WAL until the next shred or a stop\n',
        );
      }
      for (const name of isDry ? [] : oldCopies) {
        session.say(`warning: ${printable(name)} in the data directory still has them: remove it\n`);
      }
      print(session, command, { entries, values, erased, oldCopies, dryRun: isDry }, () =>
        formatPairs([[isDry ? 'would shred' : 'shredded', `${values} values of ${entries} entries`]]),
      );
    });
}

function addIndex(text: string, before: readonly number[] = []): readonly number[] {
  if (!/^(0|[1-9][0-9]{0,14})$/.test(text))
    throw new InvalidArgumentError('It is not the index of an entry.');
  return [...before, Number(text)];
}
