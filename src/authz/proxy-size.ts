import type { Condition, ProxyTree } from './proxy-tree.ts';

/**
 * What a tree takes in a proxy: about its encoded size in bytes, and a kilobyte more for each expression, which a proxy
 * compiles. Never less than its encoded size.
 */
export function sizeOf(tree: ProxyTree): number {
  const known = sizes.get(tree);
  if (known !== undefined) return known;
  const size = measure(tree);
  sizes.set(tree, size);
  return size;
}

const sizes = new WeakMap<ProxyTree, number>();

function measure(tree: ProxyTree): number {
  switch (tree.kind) {
    case 'leaf':
      return actionBytes + tree.name.length;
    case 'list':
      return tree.entries.reduce(
        (sum, [condition, below]) => sum + nodeBytes + conditionSize(condition) + sizeOf(below),
        nodeBytes + sizeOf(tree.otherwise),
      );
    case 'map': {
      let sum = nodeBytes + inputBytes + sizeOf(tree.otherwise);
      for (const [key, below] of tree.branches) sum += nodeBytes + Buffer.byteLength(key) + sizeOf(below);
      return sum;
    }
    default:
      return tree satisfies never;
  }
}

function conditionSize(condition: Condition): number {
  if (typeof condition === 'boolean') return 0;
  switch (condition.kind) {
    case 'test': {
      const { how, text } = condition.test;
      return inputBytes + partBytes + Buffer.byteLength(text) + (how === 'regex' ? regexBytes : 0);
    }
    case 'not':
      return partBytes + conditionSize(condition.of);
    case 'all':
    case 'any':
      return condition.of.reduce((sum, one) => sum + partBytes + conditionSize(one), partBytes);
    default:
      return condition satisfies never;
  }
}

const actionBytes = 68;
const inputBytes = 104;
const nodeBytes = 20;
const partBytes = 5;
const regexBytes = 1_024;
