/** Writes the tables of docs/simulator.md from the simulator's own schemas; the text between them is written by hand. */
import { readFileSync } from 'node:fs';
import { type ReferenceSection, simulatorReference } from '../../src/simulator/index.ts';
import { write } from './write.ts';

const FILE = 'docs/simulator.md';
const sections = simulatorReference();
const text = readFileSync(new URL(`../../${FILE}`, import.meta.url), 'utf8');
const found = new Set<string>();
const made = text.replaceAll(/(<!-- table: (.+?) -->\n)[\s\S]*?(<!-- end -->)/g, (_, start, title, end) => {
  found.add(title);
  const section = sections.find((each) => each.title === title);
  if (section === undefined) throw new Error(`there is no table ${title}`);
  return `${start}${table(section)}${end}`;
});
const missing = sections.filter(({ title }) => !found.has(title));
if (missing.length > 0) throw new Error(`${FILE} shows no ${missing.map(({ title }) => title).join(', ')}`);
write({ [FILE]: made });

function table({ title, rows }: ReferenceSection): string {
  const hasValues = rows.some(({ value }) => value !== '');
  const isKinds = title === 'faults' || title === 'script items';
  const head = hasValues ? [title, isKinds ? 'fields' : 'default', ''] : [title, ''];
  const lines = rows.map(({ name, value, text: said }) => {
    const first = `\`${name}\``;
    const set = value === '' ? '' : isKinds ? value : `\`${value}\``;
    return row(hasValues ? [first, set, said] : [first, said]);
  });
  return [row(head), row(head.map(() => '---')), ...lines, ''].join('\n');
}

function row(cells: readonly string[]): string {
  return `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
}
