import type { Command } from 'commander';
import { MeshError } from '../errors.ts';
import type { AnswerRow } from '../identity/questions/answer.ts';
import { globalOptions } from './global-options.ts';
import { printable } from './text.ts';

/**
 * Edges as a graph for Graphviz: a box for each identity, in one frame with its namespace. Names stand between quotes and
 * nowhere else.
 * @param edges rows of the question `graph`
 * @see https://graphviz.org/doc/info/lang.html
 */
export function formatDot(edges: readonly AnswerRow[]): string {
  const nodes = new Map<string, Node>();
  const nodeOf = (id: string, namespace: string): string => {
    const known = nodes.get(id) ?? { name: `n${nodes.size}`, id, namespace };
    nodes.set(id, known);
    return known.name;
  };
  const arrows = edges.map((edge) => {
    const from = nodeOf(textOf(edge, 'source'), textOf(edge, 'sourceNamespace'));
    const to = nodeOf(textOf(edge, 'destination'), textOf(edge, 'destinationNamespace'));
    return `  ${from} -> ${to} [${attributesOf(edge)}];\n`;
  });
  const frames = [...Map.groupBy(nodes.values(), ({ namespace }) => namespace)].map(([namespace, own], at) =>
    namespace === '' ? own.map(boxOf).join('') : frameOf(namespace, own, at),
  );
  return `digraph calls {\n  rankdir=LR;\n  node [shape=box];\n${frames.join('')}${arrows.join('')}}\n`;
}

/** Marks a command as one that prints a graph. */
export function offerDot(command: Command): Command {
  offering.add(command);
  return command;
}

/** @throws MeshError `usage` for `-o dot` of a command that does not print it */
export function refuseDot(command: Command): void {
  if (globalOptions(command).output !== 'dot' || offering.has(command)) return;
  throw new MeshError('usage', `${command.name()} does not print dot`, { fix: 'use -o table or -o json' });
}

type Node = { readonly name: string; readonly id: string; readonly namespace: string };

function frameOf(namespace: string, nodes: readonly Node[], at: number): string {
  return `  subgraph cluster_${at} {\n    label=${quoted(namespace)};\n${nodes.map((node) => `  ${boxOf(node)}`).join('')}  }\n`;
}

function boxOf({ name, id }: Node): string {
  const label = id === '' ? '(no certificate)' : (/\/sa\/([^/]+)$/.exec(id)?.[1] ?? id);
  return `  ${name} [label=${quoted(label)}, tooltip=${quoted(id)}];\n`;
}

/** Words beside every colour: whoever sees none of them reads what they say. */
function attributesOf(edge: AnswerRow): string {
  const kinds = ['allowed', 'denied', 'plaintext'] as const;
  const words = kinds.flatMap((kind) =>
    numberOf(edge, kind) === 0 ? [] : [`${numberOf(edge, kind)} ${kind}`],
  );
  const isDenied = numberOf(edge, 'denied') > 0;
  const isPlain = numberOf(edge, 'plaintext') > 0;
  const color = isDenied ? 'red' : isPlain ? 'orange' : 'black';
  const style = isPlain ? 'dashed' : isDenied && numberOf(edge, 'allowed') === 0 ? 'dotted' : 'solid';
  return `label=${quoted(words.join(', '))}, color=${color}, style=${style}, tooltip=${quoted(`last ${textOf(edge, 'last')}`)}`;
}

/** A string of DOT: a backslash begins an escape in labels, a quote ends the string. */
function quoted(text: string): string {
  return `"${printable(text).replaceAll('\t', ' ').replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`;
}

function textOf(row: AnswerRow, name: string): string {
  const value = row[name];
  return typeof value === 'string' ? value : '';
}

function numberOf(row: AnswerRow, name: string): number {
  const value = row[name];
  return typeof value === 'number' ? value : 0;
}

const offering = new WeakSet<Command>();
