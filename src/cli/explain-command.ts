import { Command } from 'commander';
import type { ExplainedDecisions } from '../http/decision-routes.ts';
import { MeshError, quote } from '../errors.ts';
import { formatDecision } from './decision-text.ts';
import { explainLeaf, leafIn } from './explain-leaf.ts';
import { examples } from './help.ts';
import { clientOf, print, type Session } from './session.ts';
import { printSuggestion } from './suggestion.ts';
import { printableLines } from './text.ts';

/** `countersign authz explain`. */
export function explainCommand(session: Session): Command {
  return new Command('explain')
    .description(
      'explain a decision in the audit log: what decided then, and what the same call would get now',
    )
    .argument(
      '<decision-id>',
      'what the denied caller was told: the header x-countersign-decision; of a call that the proxy denied by itself what Envoy says of it: rbac_access_denied_matched_policy[...]',
    )
    .option('--suggest-policy', 'print a policy that allows this very call now, instead of the explanation')
    .addHelpText('after', examples(...explainExamples))
    .action(async (id: string, options: { readonly suggestPolicy?: true }, command: Command) => {
      const leaf = leafIn(id);
      if (leaf !== undefined && options.suggestPolicy !== true) return explainLeaf(session, command, leaf);
      const path = `/v1/authz/decisions/${encodeURIComponent(id)}`;
      const answer = await clientOf(session, command).get<ExplainedDecisions>(path, {});
      if (options.suggestPolicy === true) {
        suggest(session, answer);
        return;
      }
      print(session, command, answer, () => printableLines(formatExplained(answer)));
    });
}

function suggest(session: Session, { decisionId, items, more }: ExplainedDecisions): void {
  const [first] = items;
  const isOne = items.length === 1 && !more;
  const explanation = first?.now?.explanation ?? null;
  if (isOne && explanation !== null) {
    printSuggestion(session, explanation);
    return;
  }
  const why = isOne
    ? 'what the call would get now cannot be told'
    : `several records have the ID ${quote(decisionId)}`;
  throw new MeshError('suggestion_impossible', why, {
    fix: 'ask about the call with countersign authz check --suggest-policy, and tell what the log does not hold',
  });
}

/** Decisions with one ID, explained, for a terminal. */
export function formatExplained({ decisionId, items, more }: ExplainedDecisions): string {
  const count = more ? `more than ${items.length}` : `${items.length}`;
  const head =
    items.length === 1 && !more
      ? ''
      : `${count} records have the ID ${decisionId}: nodes say which IDs they gave. The first in the log comes first.\n\n`;
  return `${head}${items.map(formatDecision).join('\n')}`;
}

const explainExamples = [
  'authz explain 3f1c0c9a5d0e4b7f8a6b2c1d',
  'authz explain 3f1c0c9a5d0e4b7f8a6b2c1d --suggest-policy > allow.yaml',
  "authz explain 'rbac_access_denied_matched_policy[deny:no_allow_rule]'",
];
