import { Command } from 'commander';
import type { PolicySuggestion } from '../identity/policy-suggest.ts';
import type { Travelled } from '../http/travelled.ts';
import { formatBasis } from './answer-text.ts';
import { globalOptions } from './global-options.ts';
import { examples } from './help.ts';
import { callsOptions, replayMs } from './replay-command.ts';
import { clientOf, print, type Session } from './session.ts';
import { printable, printableLines } from './text.ts';

/** `countersign policy suggest`. */
export function policySuggestCommand(session: Session): Command {
  const command = new Command('suggest').description(
    'print policies that allow what was seen to be allowed, and no more; applies nothing',
  );
  return callsOptions(command, '30d')
    .addHelpText(
      'after',
      examples(
        'policy suggest --destination spiffe://mesh.internal/ns/pay/sa/ledger > ledger.yaml',
        'policy suggest --namespace pay --since 90d',
      ),
    )
    .action(async (asked: Readonly<Record<string, string>>, own: Command) => {
      const client = clientOf(session, own);
      const answer = await client.post<Travelled<PolicySuggestion>>(
        '/v1/policy-suggestions',
        asked,
        replayMs,
      );
      print(session, own, answer, () => formatSuggestion(answer));
      if (globalOptions(own).output === 'json') return;
      // Beside the documents, which can be applied as they are.
      session.say(formatBasis(answer));
      const replaced = new Set(answer.services.flatMap(({ replaces }) => replaces));
      if (replaced.size === 0) return;
      const without = [...replaced].map((key) => ` --without ${key}`).join('');
      session.say(`try them    ${session.program} policy replay${printable(without)} FILE\n`);
    });
}

function formatSuggestion({ services }: Travelled<PolicySuggestion>): string {
  const documents = services.map(({ destination, yaml, calls, left, why }) => {
    if (yaml !== '') return printableLines(yaml);
    const lines = [
      `# ${destination}: ${why}`,
      ...(calls > 0 ? [`# ${calls} calls rest on what is in force`] : []),
      ...left.map((one) => `# not in it: ${one.calls} calls: ${one.why}`),
    ];
    return lines.map((line) => `${printable(line)}\n`).join('');
  });
  return documents.length === 0 ? '# no allowed call is in the log\n' : documents.join('---\n');
}
