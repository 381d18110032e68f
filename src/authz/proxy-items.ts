import { nameOfRule } from './leaf-name.ts';
import type { CompiledRule } from './match.ts';
import { conditionsOf, type TreeWorld } from './proxy-condition.ts';
import { asking } from './proxy-guard.ts';
import { type Condition, type Leaf, listOf, type ProxyTree } from './proxy-tree.ts';
import type { Residue } from './residue.ts';
import { rulesInStep, type Steps } from './steps.ts';

/**
 * What a rule does to a call that it matches, in the order in which they count. Grants are break-glass grants, and liftable
 * is a DENY rule that a grant outweighs; where no grant applies every DENY rule is a `deny`.
 */
export const treeRoles = ['audit', 'custom', 'deny', 'grant', 'liftable', 'allow'] as const;
export type TreeRole = (typeof treeRoles)[number];

/** What is left of a rule at some place in a tree. */
export type TreeItem = { readonly role: TreeRole; readonly residue: Residue };

/**
 * Judges by items one after the other, as `decide` does: what may deny before what may allow. A rule of which the proxy
 * cannot tell everything decides where it certainly matches, and asks where it may.
 * When they are more than {@link maxItems}, every call asks.
 * @param otherwise for calls that none of them is about
 */
export function* judgeInOrder(
  items: readonly TreeItem[],
  world: TreeWorld,
  otherwise: ProxyTree,
): Steps<ProxyTree> {
  // A proxy tries them one after the other, and would be slower than whoever it asks.
  if (items.length > maxItems) return asking('size');
  let steps = 0;
  const entries: (readonly [Condition, ProxyTree])[] = [];
  for (const role of treeRoles) {
    const possible: (readonly [Condition, ProxyTree])[] = [];
    const some = items.filter((item) => item.role === role);
    for (const { residue } of some.sort((a, b) => a.residue.compiled.ordinal - b.residue.compiled.ordinal)) {
      if (steps++ % rulesInStep === rulesInStep - 1) yield;
      const { must, may, why } = conditionsOf(residue, residue.compiled.policy.action, world);
      // These must be recorded, or asked of somebody else, whenever they may match.
      if (isMarking(role)) {
        possible.push([may, asking(role === 'grant' ? 'break_glass' : role)]);
        continue;
      }
      entries.push([must, leafOf(role === 'allow' ? 'allow' : 'deny', residue.compiled)]);
      if (why !== '') possible.push([may, asking(why)]);
    }
    entries.push(...possible);
  }
  return listOf(entries, otherwise);
}

const maxItems = 512;

/** Whether a role is never decided in the proxy. */
export function isMarking(role: TreeRole): boolean {
  return role === 'audit' || role === 'custom' || role === 'grant';
}

function leafOf(verdict: 'allow' | 'deny', { rule }: CompiledRule): Leaf {
  return { kind: 'leaf', verdict, name: nameOfRule(verdict, rule.name) };
}
