import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type CompiledRule, compileRule } from '../../src/authz/match.ts';
import { PrefixTree, type Reading } from '../../src/authz/prefix-tree.ts';
import { finish } from '../../src/authz/steps.ts';
import { policyText, readPolicies } from './mesh.ts';

const rules = readPolicies(policyText(`rules: [${'{},'.repeat(40)}]`)).flatMap((policy) =>
  policy.rules.map((rule, ordinal) => compileRule(policy, rule, ordinal)),
);

test.each<[Reading, (text: string, part: string) => boolean]>([
  ['from the start', (text, part) => text.startsWith(part)],
  ['from the end', (text, part) => text.endsWith(part)],
])(
  'a walk %s meets what is filed under the parts of a text, each once, and nothing else',
  (reading, fits) => {
    // Some characters lie side by side, others far from them.
    const unit = fc.constantFrom('a', 'b', 'c', '\u{4e2d}', '\u{1f600}');
    const word = fc.string({ unit, minLength: 1, maxLength: 6 });
    fc.assert(
      fc.property(
        fc.array(word, { maxLength: 40 }),
        fc.array(word, { minLength: 1, maxLength: 20 }),
        (prefixes, texts) => {
          const tree = new PrefixTree(reading);
          const filed = prefixes.map((prefix, i) => ({ prefix, rule: rules[i]! }));
          for (const { prefix, rule } of filed) tree.add(prefix, rule);
          const crowds: (readonly CompiledRule[])[] = [];
          finish(
            // eslint-disable-next-line require-yield
            tree.seal(function* (crowd) {
              crowds.push([...crowd]);
              const gather = (_facts: unknown, into: CompiledRule[]) => void into.push(...crowd);
              return { find: (_facts, best) => best, gather };
            }),
          );
          expect(crowds.flat().length).toBe(filed.length);
          for (const text of texts) {
            const met: CompiledRule[] = [];
            for (const finder of tree.walk(text)) finder.gather(undefined as never, met, Infinity);
            const expected = filed.filter(({ prefix }) => fits(text, prefix)).map(({ rule }) => rule.ordinal);
            expect(met.map(({ ordinal }) => ordinal).sort((a, b) => a - b)).toEqual(expected);
          }
        },
      ),
    );
  },
);
