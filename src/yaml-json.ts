import { Pair, type ParsedNode, Scalar, YAMLMap, YAMLSeq } from 'yaml';
import { MeshError } from './errors.ts';
import { maxDocumentDepth, type YamlDocument } from './yaml.ts';
import { type DocumentSource, YamlNode } from './yaml-node.ts';

/** Where a value of JSON stands: a line of a file, as lines of JSON have no places of their own inside. */
export type JsonPlace = { readonly file: string; readonly line: number };

/**
 * A value that `JSON.parse` gave, as a document that readers of YAML read. Every place in it is the line it stands on;
 * messages name the way to the value (`spec.rules[0].from`). Null is an empty value, as in YAML.
 * @throws MeshError `document_field_type` when the value is no object, `document_field_missing` without apiVersion or
 * kind, `document_depth` beyond 32 levels
 */
export function documentOfJson(value: unknown, { file, line }: JsonPlace): YamlDocument {
  const source: DocumentSource = { file, text: '', firstLine: line, lineStarts: [0] };
  const root = YamlNode.open(source, nodeOf(value, { file, line }, 1));
  const fields = root.entries();
  const textOf = (name: string): string => {
    const field = fields.find(({ key }) => key === name);
    if (field !== undefined) return field.value.string();
    throw new MeshError('document_field_missing', `the document has no ${name}`, {
      place: root.place,
      fix: `add ${name}`,
    });
  };
  return { file, apiVersion: textOf('apiVersion'), kind: textOf('kind'), text: '', line, root };
}

function nodeOf(value: unknown, place: JsonPlace, depth: number): ParsedNode {
  if (typeof value !== 'object' || value === null) return at(new Scalar(value));
  if (depth > maxDocumentDepth) {
    throw new MeshError('document_depth', `the document is nested deeper than ${maxDocumentDepth} levels`, {
      place: { ...place, column: 1 },
      fix: 'flatten it',
    });
  }
  if (Array.isArray(value)) {
    const list = new YAMLSeq();
    list.items = value.map((item) => nodeOf(item, place, depth + 1));
    return at(list);
  }
  const map = new YAMLMap();
  map.items = Object.entries(value).map(
    ([key, item]) => new Pair(at(new Scalar(key)), nodeOf(item, place, depth + 1)),
  );
  return at(map);
}

/** What the library makes of text has a range; this has the beginning of its line. */
function at(node: Scalar | YAMLSeq | YAMLMap): ParsedNode {
  node.range = [0, 0, 0];
  return node as ParsedNode;
}
