/** Words of a command line, as those who read it want them. */

export function quoteForShell(word: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`
}

/** systemd.service(5), "Command lines": quotes, specifiers, variables. */
export function quoteForUnit(word: string): string {
  const escaped = word
    .replaceAll('\\', '\\\\')
    .replaceAll('"', '\\"')
    .replaceAll('%', '%%')
    .replaceAll('$', '$$$$')
  return /^[A-Za-z0-9_@+=:,./%-]+$/.test(escaped) ? escaped : `"${escaped}"`
}

/** Between two tags of a property list. */
export function quoteForXml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
}

/** One argument of PowerShell, which reads nothing in such quotes but the quote itself. */
export function quoteForPowerShell(text: string): string {
  return `'${text.replaceAll("'", "''")}'`
}

/** One argument of a Windows command line, as the C library takes it apart. */
export function quoteForWindows(word: string): string {
  if (/^[^\s"]+$/.test(word)) return word
  return `"${word.replace(/(\\*)"/g, '$1$1\\"').replace(/(\\+)$/, '$1$1')}"`
}
