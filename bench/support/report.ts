import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, release } from 'node:os';
import { fileURLToPath } from 'node:url';

const RESULTS = new URL('../results/', import.meta.url);

export type Row = Readonly<Record<string, string | number>>;

export interface Bar {
  readonly label: string;
  readonly value: number;
}

export interface Report {
  /** File name in bench/results, without ending. */
  readonly name: string;
  readonly title: string;
  /** Assumptions and settings that a reader needs to judge the numbers. */
  readonly notes: readonly string[];
  readonly rows: readonly Row[];
  readonly chart?: { readonly unit: string; readonly bars: readonly Bar[] };
}

/** Writes JSON, a Markdown table and an SVG, and prints the table. */
export function publish(report: Report): void {
  mkdirSync(fileURLToPath(RESULTS), { recursive: true });
  const machine = `${cpus().length} × ${cpus()[0]?.model.trim() ?? 'unknown'}, Linux ${release()}, Node ${process.version}`;
  const table = markdown(report.rows);
  const text = [
    `# ${report.title}`,
    '',
    ...report.notes.map((note) => `- ${note}`),
    `- Machine: ${machine}.`,
    '',
    table,
    '',
  ].join('\n');
  writeFileSync(
    new URL(`${report.name}.json`, RESULTS),
    `${JSON.stringify({ title: report.title, notes: report.notes, machine, rows: report.rows }, null, 2)}\n`,
  );
  writeFileSync(new URL(`${report.name}.md`, RESULTS), text);
  if (report.chart !== undefined)
    writeFileSync(
      new URL(`${report.name}.svg`, RESULTS),
      svg(report.title, report.chart.unit, report.chart.bars),
    );
  process.stdout.write(`\n${text}\n`);
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

export function quantile(values: readonly number[], q: number): number {
  const sorted = values.filter((value) => !Number.isNaN(value)).sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? Number.NaN;
}

export function round(value: number, digits = 2): number {
  return Number(value.toFixed(digits));
}

function markdown(rows: readonly Row[]): string {
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const line = (cells: readonly (string | number)[]) => `| ${cells.join(' | ')} |`;
  return [
    line(columns),
    line(columns.map(() => '---')),
    ...rows.map((row) => line(columns.map((column) => row[column] ?? ''))),
  ].join('\n');
}

function svg(title: string, unit: string, bars: readonly Bar[]): string {
  const height = 28;
  const left = 300;
  const width = 760;
  const max = Math.max(...bars.map(({ value }) => value), Number.MIN_VALUE);
  const rows = bars.map(({ label, value }, index) => {
    const y = 44 + index * height;
    const length = Math.max(1, (value / max) * (width - left - 90));
    return [
      `<text x="${left - 8}" y="${y + 15}" text-anchor="end">${escapeXml(label)}</text>`,
      `<rect x="${left}" y="${y}" width="${length.toFixed(1)}" height="20" fill="#3b6ea5"/>`,
      `<text x="${left + length + 6}" y="${y + 15}">${round(value)} ${escapeXml(unit)}</text>`,
    ].join('');
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${60 + bars.length * height}" font-family="sans-serif" font-size="13"><rect width="100%" height="100%" fill="#fff"/><text x="10" y="24" font-size="15" font-weight="bold">${escapeXml(title)}</text>${rows.join('')}</svg>\n`;
}

function escapeXml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}
