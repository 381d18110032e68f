/** What happened to something that is undefined where it was not, or is not any longer. */
export function actionOf(before: unknown, after: unknown): 'created' | 'updated' | 'deleted' {
  if (after === undefined) return 'deleted';
  return before === undefined ? 'created' : 'updated';
}
