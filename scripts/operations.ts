// Renews the tables of spec/operations.md that are made of the code: settings and figures.
import { readFileSync, writeFileSync } from 'node:fs'
import { renewed } from './deploy/operations.ts'

const file = new URL('../spec/operations.md', import.meta.url)
writeFileSync(file, renewed(readFileSync(file, 'utf8')))
process.stdout.write('spec/operations.md\n')
