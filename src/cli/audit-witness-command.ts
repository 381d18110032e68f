import { Command } from 'commander';
import type { Travelled } from '../http/travelled.ts';
import type { WitnessReport } from '../http/witness-report.ts';
import { examples } from './help.ts';
import { clientOf, print, type Session } from './session.ts';
import { count, formatPairs, formatTable, printable } from './text.ts';

type Report = Travelled<WitnessReport>;

/** `countersign audit witnesses`. */
export function witnessesCommand(session: Session): Command {
  return new Command('witnesses')
    .description(
      'show who cosigns the log and what is in their way, and which logs of others are cosigned here',
    )
    .addHelpText('after', examples('audit witnesses', 'audit witnesses -o json'))
    .action(async (_options: unknown, command: Command) => {
      const report = await clientOf(session, command).get<Report>('/v1/audit/witnesses');
      print(session, command, report, () => [...cosignedText(report), ...witnessText(report)].join('\n'));
    });
}

function cosignedText({ cosigned }: Report): readonly string[] {
  if (cosigned === null) return ['nobody is configured to cosign the log of this server\n'];
  const { size, behindSince, witnesses } = cosigned;
  return [
    formatPairs([
      [
        'witnessed',
        size === null ? 'no quorum has cosigned yet' : `${count(size, 'entry', 'entries')} by a quorum`,
      ],
      ['behind', behindSince === null ? 'no' : `since ${behindSince}`],
    ]),
    formatTable(
      ['WITNESS', 'KEY', 'STATE', 'ENTRIES', 'COSIGNED AT', 'WHY NOT'],
      witnesses.map((one) => [
        printable(one.name),
        printable(one.keyName),
        one.state,
        one.size === null ? '-' : `${one.size}`,
        one.cosignedAt ?? '-',
        printable(one.failure === '' ? '-' : one.failure),
      ]),
    ),
  ];
}

function witnessText({ witness }: Report): readonly string[] {
  if (witness === null) return ['no logs of others are cosigned here\n'];
  return [
    formatPairs([['own key', printable(witness.verifierKey)]]),
    formatTable(
      ['LOG', 'ENTRIES', 'COSIGNED AT', 'HISTORIES'],
      witness.logs.map(({ origin, size, cosignedAt, fork }) => [
        printable(origin),
        size === null ? '-' : `${size}`,
        cosignedAt ?? '-',
        fork === null ? 'one' : `two, seen at ${fork.seenAt}: -o json has both checkpoints`,
      ]),
    ),
  ];
}
