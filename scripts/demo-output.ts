/** How the demos tell what they found. */
export function table(rows: readonly (readonly [string, string])[]): string {
  const label = Math.max(...rows.map(([text]) => text.length));
  const value = Math.max(...rows.map(([, text]) => text.length));
  const rule = `  ${'─'.repeat(label + value + 3)}\n`;
  return `\n\n${rule}${rows.map(([a, b]) => `  ${a.padEnd(label)}   ${b.padStart(value)}\n`).join('')}${rule}`;
}

export function print(text: string): void {
  process.stdout.write(text);
}
