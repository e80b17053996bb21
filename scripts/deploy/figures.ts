import { openMetrics } from '../../src/metrics.ts'

export type Figure = { name: string; help: string; labels: readonly string[] }

/** Every figure that /metrics may show, as the code registers them. */
export function figures(): Figure[] {
  const metrics = openMetrics()
  return [metrics.register, metrics.shared().register]
    .flatMap((register) => register.getMetricsAsArray())
    .map(({ name, help, ...rest }) => {
      const { labelNames = [] } = rest as unknown as { labelNames?: readonly string[] }
      return { name, help, labels: labelNames }
    })
}

const ofHistogram = /_(?:bucket|sum|count)$/

/** The figures that a text in PromQL, or about it, names: of a histogram's series the histogram. */
export function figuresIn(text: string, known: readonly Figure[] = figures()): string[] {
  const names = new Set(known.map(({ name }) => name))
  const found = [...text.matchAll(/\b(?:packs|process|nodejs)_[a-z0-9_]+/g)].map(([name]) => name)
  return [...new Set(found.map((name) => (names.has(name) ? name : name.replace(ofHistogram, ''))))]
}

export type Panel = {
  id: number
  type: string
  title: string
  datasource?: { uid: string }
  gridPos: { x: number; y: number; w: number; h: number }
  targets?: { refId: string; expr: string; datasource: { uid: string } }[]
}
export type Dashboard = {
  uid: string
  title: string
  schemaVersion: number
  panels: Panel[]
  templating: { list: { name: string; type: string; query: string | { query: string } }[] }
}

export type Rule = {
  alert: string
  expr: string
  for?: string
  labels: { severity: string }
  annotations: { summary: string; description: string }
}
