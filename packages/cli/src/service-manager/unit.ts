import { PosternError } from '@postern/shared/errors'
import { quoteForPowerShell, quoteForUnit, quoteForWindows, quoteForXml } from './quote.ts'

/** A command that stays, as a service of the person's own: what each system wants to read about it. */

export interface UserService {
  /** `postern-listen`; file and unit have it. */
  name: string
  description: string
  /** Program and arguments. */
  command: readonly [string, ...string[]]
  /** The person's state, as it was found when the service was made. */
  stateFolder: string
  /** Where relative names in the command begin. */
  folder: string
  /** The line that takes it away. */
  uninstallLine: string
}

export type ServiceSystem = 'systemd' | 'launchd' | 'windows'

export function parseServiceSystem(text: string): ServiceSystem {
  if (text === 'systemd' || text === 'launchd' || text === 'windows') return text
  throw new PosternError('USAGE_INVALID', `there is no service system ${JSON.stringify(text)}`, {
    hint: 'the systems are systemd, launchd and windows',
  })
}

const NAME = /^[a-z][a-z0-9-]{0,62}$/

export function parseServiceName(text: string): string {
  if (NAME.test(text)) return text
  throw new PosternError('USAGE_INVALID', `${JSON.stringify(text)} is not the name of a service`, {
    hint: 'use lower-case letters, digits and hyphens, as in postern-listen',
  })
}

export function renderService(system: ServiceSystem, service: UserService): string {
  return RENDER[system](service)
}

/** The first line says whose the file is. */
export function firstLine({ uninstallLine }: Pick<UserService, 'uninstallLine'>): string {
  return `# Written by postern; taken away by: ${uninstallLine}`
}

const RENDER: Readonly<Record<ServiceSystem, (service: UserService) => string>> = {
  systemd: (service) => `${firstLine(service)}
[Unit]
Description=${service.description}
# the edge may be away for long
StartLimitIntervalSec=0

[Service]
Type=notify
# systemd-notify is a process of its own
NotifyAccess=all
# ready is who has reached the edge, and that may take its time
TimeoutStartSec=infinity
WorkingDirectory=${service.folder.replaceAll('%', '%%')}
Environment=${quoteForUnit(`POSTERN_HOME=${service.stateFolder}`)}
ExecStart=${service.command.map(quoteForUnit).join(' ')}
Restart=always
RestartSec=5
# what is wrong with the command line or its file does not mend itself
RestartPreventExitStatus=2
UMask=0077
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native

[Install]
WantedBy=default.target
`,
  launchd: ({ name, command, stateFolder, folder }) => `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<!-- ~/Library/LaunchAgents/dev.postern.${name}.plist, then:
     launchctl bootstrap gui/$UID ~/Library/LaunchAgents/dev.postern.${name}.plist
     and to end it: launchctl bootout gui/$UID/dev.postern.${name} -->
<plist version="1.0">
<dict>
  <key>Label</key><string>dev.postern.${name}</string>
  <key>ProgramArguments</key>
  <array>
${command.map((word) => `    <string>${quoteForXml(word)}</string>`).join('\n')}
  </array>
  <key>EnvironmentVariables</key>
  <dict><key>POSTERN_HOME</key><string>${quoteForXml(stateFolder)}</string></dict>
  <key>WorkingDirectory</key><string>${quoteForXml(folder)}</string>
  <key>RunAtLoad</key><true/>
  <key>KeepAlive</key><true/>
  <key>ThrottleInterval</key><integer>5</integer>
  <key>StandardErrorPath</key><string>${quoteForXml(`${stateFolder}/${name}.log`)}</string>
</dict>
</plist>
`,
  windows: ({ name, description, command: [program, ...args], stateFolder, folder }) => {
    const line = args.map(quoteForWindows).join(' ')
    return `# PowerShell, as the person whose service it is
[Environment]::SetEnvironmentVariable('POSTERN_HOME', ${quoteForPowerShell(stateFolder)}, 'User')
$action = New-ScheduledTaskAction -Execute ${quoteForPowerShell(program)} -Argument ${quoteForPowerShell(line)} -WorkingDirectory ${quoteForPowerShell(folder)}
$trigger = New-ScheduledTaskTrigger -AtLogOn -User $env:USERNAME
$settings = New-ScheduledTaskSettingsSet -AllowStartIfOnBatteries -DontStopIfGoingOnBatteries -RestartCount 999 -RestartInterval (New-TimeSpan -Minutes 1) -ExecutionTimeLimit 0
Register-ScheduledTask -TaskName ${quoteForPowerShell(name)} -Description ${quoteForPowerShell(description)} -Action $action -Trigger $trigger -Settings $settings
Start-ScheduledTask -TaskName ${quoteForPowerShell(name)}
`
  },
}
