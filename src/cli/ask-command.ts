import { Command } from 'commander';
import type { ExplainedDecisions } from '../http/decision-routes.ts';
import type { QuestionList } from '../http/question-routes.ts';
import { MeshError, quote } from '../errors.ts';
import { formatAnswer, formatAnswerCsv, formatBasis, type ToldAnswer } from './answer-text.ts';
import { offerCsv } from './csv.ts';
import { formatExplained } from './explain-command.ts';
import { globalOptions } from './global-options.ts';
import { formatDot, offerDot } from './graph-dot.ts';
import { examples } from './help.ts';
import { clientOf, print, type Session } from './session.ts';
import { formatTable, printableLines } from './text.ts';

/** `countersign audit ask|why|cert|graph`. */
export function questionCommands(session: Session): readonly Command[] {
  return [askCommand(session), whyCommand(session), certCommand(session), graphCommand(session)];
}

function askCommand(session: Session): Command {
  const command = new Command('ask')
    .description(
      "answer an auditor's question, with what the answer covers and proves; without one, list all",
    )
    .argument('[question]', 'its name')
    .argument('[parameters...]', 'each as name=value')
    .option('--table <name>', 'the table to print as csv (the first when left out)')
    .addHelpText(
      'after',
      examples(
        'audit ask',
        'audit ask denied namespace=pay since=30d',
        'audit ask sample since=90d seed=2026-q3-audit -o csv --table sample',
      ),
    );
  return offerCsv(command).action(
    async (
      name: string | undefined,
      parameters: readonly string[],
      options: { readonly table?: string },
      own: Command,
    ) => {
      if (name === undefined) return listQuestions(session, own);
      const answer = await ask(session, own, name, parseParameters(parameters));
      if (globalOptions(own).output === 'csv')
        session.write(formatAnswerCsv(findTable(answer, options.table)));
      else print(session, own, answer, () => formatAnswer(answer));
      if (answer.next !== null) session.say(`more: cursor=${answer.next}\n`);
    },
  );
}

function whyCommand(session: Session): Command {
  return new Command('why')
    .description('explain a decision in the log, and say what proves that it was made')
    .argument('<decision-id>', 'what the denied caller was told: the header x-countersign-decision')
    .addHelpText('after', examples('audit why 3f1c0c9a5d0e4b7f8a6b2c1d'))
    .action(async (id: string, _: object, command: Command) => {
      const answer = await ask(session, command, 'decision', { id });
      const path = `/v1/authz/decisions/${encodeURIComponent(id)}`;
      const explained = await clientOf(session, command).get<ExplainedDecisions>(path, {});
      print(
        session,
        command,
        { ...answer, explained },
        // What is not in the log stands in the explanation already.
        () => `${printableLines(formatExplained(explained))}\n${formatBasis({ ...answer, missing: [] })}`,
      );
    });
}

function certCommand(session: Session): Command {
  const command = new Command('cert')
    .description('tell all of a certificate: evidence, entry, policies, renewals, bans and uses')
    .argument('<serial>', 'its serial number in hex, or the jti of a token')
    .addHelpText('after', examples('audit cert 5f3a9c0000000000000000000000aa01'));
  return command.action(async (serial: string, _: object, own: Command) => {
    const answer = await ask(session, own, 'certificate', { serial });
    print(session, own, answer, () => formatAnswer(answer));
  });
}

function graphCommand(session: Session): Command {
  const command = new Command('graph')
    .description('show who calls whom: allowed, denied and in plaintext')
    .option('--since <time>', 'a time ago such as 10m, 2h or 7d, or RFC 3339', '7d')
    .option('--until <time>', 'the same')
    .option('--namespace <name>', 'calls from or to this namespace')
    .addHelpText('after', examples('audit graph --since 1d', 'audit graph -o dot | dot -Tsvg > calls.svg'));
  return offerDot(offerCsv(command)).action(
    async (options: Readonly<Record<string, string>>, own: Command) => {
      const answer = await ask(session, own, 'graph', options);
      const edges = findTable(answer, 'edges');
      const { output } = globalOptions(own);
      if (output === 'dot') session.write(formatDot(edges.items));
      else if (output === 'csv') session.write(formatAnswerCsv(edges));
      else print(session, own, answer, () => formatAnswer(answer));
      if (edges.more) session.say('there are more edges: give a namespace, or a shorter time\n');
    },
  );
}

async function listQuestions(session: Session, command: Command): Promise<void> {
  const list = await clientOf(session, command).get<QuestionList>('/v1/audit/questions', {});
  print(session, command, list, () => {
    const rows = list.items.map(({ name, line, parameters }) => [
      name,
      parameters.map((one) => (one.isRequired ? `${one.name}=` : `[${one.name}=]`)).join(' '),
      line,
    ]);
    const others = list.unanswered.map(({ name, line, why }) => `not answered: ${name}, ${line}: ${why}\n`);
    return `${formatTable(['QUESTION', 'PARAMETERS', 'ANSWERS'], rows)}${printableLines(others.join(''))}`;
  });
}

function ask(
  session: Session,
  command: Command,
  name: string,
  parameters: Readonly<Record<string, string>>,
): Promise<ToldAnswer> {
  const path = `/v1/audit/questions/${encodeURIComponent(name)}`;
  return clientOf(session, command).get<ToldAnswer>(path, parameters);
}

/** @throws MeshError `usage` */
function parseParameters(texts: readonly string[]): Readonly<Record<string, string>> {
  const pairs = new Map<string, string>();
  for (const text of texts) {
    const at = text.indexOf('=');
    const name = text.slice(0, at);
    if (at < 1) throw usage(`${quote(text)} is no parameter`, 'write it as name=value');
    if (!/^[A-Za-z]{1,32}$/.test(name))
      throw usage(`${quote(name)} is no name of a parameter`, 'see audit ask');
    if (pairs.has(name)) throw usage(`the parameter ${quote(name)} is given twice`, 'give it once');
    pairs.set(name, text.slice(at + 1));
  }
  return Object.fromEntries(pairs);
}

function findTable({ tables }: ToldAnswer, name: string | undefined) {
  const [first] = tables;
  const found = name === undefined ? first : tables.find((table) => table.name === name);
  if (found !== undefined) return found;
  throw usage(
    `the answer has no table ${quote(name ?? '')}`,
    `use ${tables.map((table) => quote(table.name)).join(', ')}`,
  );
}

function usage(message: string, fix: string): MeshError {
  return new MeshError('usage', message, { fix });
}
