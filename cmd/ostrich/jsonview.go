package main

import (
	"encoding/json"
	"io"
	"maps"
	"strings"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// The objects that --json prints: section 10 of the design. Every field is
// present; names are added, never changed.

type statusJSON struct {
	SwarmID     string        `json:"swarmId"`
	Name        string        `json:"name"`
	DeviceID    string        `json:"deviceId"`
	Role        string        `json:"role"`
	Term        uint64        `json:"term"`
	Generation  uint64        `json:"generation"`
	Coordinator string        `json:"coordinator"`
	Quorum      bool          `json:"quorum"`
	Members     []string      `json:"members"`
	Voters      []string      `json:"voters"`
	Addresses   addressesJSON `json:"addresses"`
	RunState    string        `json:"runState"`
	BytesStored uint64        `json:"bytesStored"`
	Stats       statsJSON     `json:"stats"`
	Resources   resourcesJSON `json:"resources"`
	SwarmName   string        `json:"swarmName"`
	Warnings    []string      `json:"warnings"`
	Version     string        `json:"version"`
	PID         int32         `json:"pid"`

	Standbys     []string     `json:"standbys"`
	Committed    uint64       `json:"committed"`
	Format       uint32       `json:"format"`
	LogIndex     uint64       `json:"logIndex"`
	Applied      uint64       `json:"applied"`
	Lag          uint64       `json:"lag"`
	PagesMissing uint64       `json:"pagesMissing"`
	MemberViews  []memberJSON `json:"memberViews"`
	ViewAgeMS    int64        `json:"viewAgeMs"`
}

// memberJSON is what the coordinator knows of a member.
type memberJSON struct {
	ID           string `json:"id"`
	Name         string `json:"name"`
	Online       bool   `json:"online"`
	Voter        bool   `json:"voter"`
	Standby      bool   `json:"standby"`
	Applied      uint64 `json:"applied"`
	Lag          uint64 `json:"lag"`
	PagesMissing uint64 `json:"pagesMissing"`
	DiskFree     uint64 `json:"diskFree"`
	SilentMS     int64  `json:"silentMs"`
	ClockAheadMS int64  `json:"clockAheadMs"`
	Version      string `json:"version"`
	Format       uint32 `json:"format"`
}

func memberView(m *wire.MemberView) memberJSON {
	r := m.GetReport()
	return memberJSON{
		ID: m.GetId(), Name: m.GetName(), Online: m.GetOnline(), Voter: m.GetVoter(), Standby: m.GetStandby(),
		Applied: r.GetApplied(), Lag: m.GetLag(), PagesMissing: r.GetPagesMissing(), DiskFree: r.GetDiskFree(),
		SilentMS: m.GetSilentMs(), ClockAheadMS: m.GetClockAheadMs(), Version: m.GetVersion(), Format: m.GetFormat(),
	}
}

// findingJSON is one thing that doctor looked at.
type findingJSON struct {
	Level   string `json:"level"`
	Subject string `json:"subject"`
	Text    string `json:"text"`
	Mend    string `json:"mend"`
}

func findingView(f *wire.Finding) findingJSON {
	return findingJSON{f.GetLevel(), f.GetSubject(), f.GetText(), f.GetMend()}
}

type addressesJSON struct {
	P2P     []string `json:"p2p"`
	Public  string   `json:"public"`
	Control string   `json:"control"`
}

type statsJSON struct {
	TotalJobs      uint64  `json:"totalJobs"`
	ActiveJobs     uint64  `json:"activeJobs"`
	PendingJobs    uint64  `json:"pendingJobs"`
	CompletedJobs  uint64  `json:"completedJobs"`
	TotalTasks     uint64  `json:"totalTasks"`
	ActiveTasks    uint64  `json:"activeTasks"`
	PendingTasks   uint64  `json:"pendingTasks"`
	CompletedTasks uint64  `json:"completedTasks"`
	FailedTasks    uint64  `json:"failedTasks"`
	GlobalVelocity float64 `json:"globalVelocity"`
	GlobalThrottle uint32  `json:"globalThrottle"`
}

type resourcesJSON struct {
	TotalCores    uint64  `json:"totalCores"`
	TotalMemoryGB float64 `json:"totalMemoryGB"`
	TotalGPUs     uint64  `json:"totalGPUs"`
	OnlineCount   uint64  `json:"onlineCount"`
}

func statusView(s *wire.Status) statusJSON {
	v := s.GetView()
	st, r := v.GetStats(), v.GetResources()
	return statusJSON{
		SwarmID: s.GetSwarmId(), Name: s.GetName(), DeviceID: s.GetDeviceId(), Role: enum(s.GetRole().String(), "ROLE_", true),
		Term: v.GetTerm(), Generation: v.GetGeneration(), Coordinator: v.GetCoordinator(), Quorum: s.GetQuorum(),
		Members: list(v.GetMembers()), Voters: list(v.GetVoters()),
		Addresses: addressesJSON{list(s.GetP2PAddresses()), s.GetPublicAddress(), s.GetControlAddress()},
		RunState:  v.GetRunState(), BytesStored: s.GetBytesStored(),
		Stats: statsJSON{
			st.GetTotalJobs(), st.GetActiveJobs(), st.GetPendingJobs(), st.GetCompletedJobs(),
			st.GetTotalTasks(), st.GetActiveTasks(), st.GetPendingTasks(), st.GetCompletedTasks(), st.GetFailedTasks(),
			st.GetGlobalVelocity(), st.GetGlobalThrottle(),
		},
		Resources: resourcesJSON{r.GetTotalCores(), r.GetTotalMemoryGb(), r.GetTotalGpus(), r.GetOnlineCount()},
		SwarmName: v.GetSwarmName(), Warnings: list(s.GetWarnings()), Version: s.GetVersion(), PID: s.GetPid(),
		Standbys: list(v.GetStandbys()), Committed: v.GetCommitted(), Format: v.GetFormat(),
		LogIndex: s.GetLogIndex(), Applied: s.GetApplied(), Lag: s.GetLag(), PagesMissing: s.GetPagesMissing(),
		MemberViews: views(v.GetMemberViews(), memberView), ViewAgeMS: s.GetViewAgeMs(),
	}
}

type deviceJSON struct {
	ID                  string            `json:"id"`
	Name                string            `json:"name"`
	Type                string            `json:"type"`
	Status              string            `json:"status"`
	Role                string            `json:"role"`
	Labels              map[string]string `json:"labels"`
	Capabilities        capabilitiesJSON  `json:"capabilities"`
	OpsScore            float64           `json:"opsScore"`
	Weight              float64           `json:"weight"`
	TotalTasksCompleted uint64            `json:"totalTasksCompleted"`
	LastHeartbeat       string            `json:"lastHeartbeat"`
	Mode                string            `json:"mode"`
	InvitedBy           string            `json:"invitedBy"`
	Version             string            `json:"version"`
	Unwell              string            `json:"unwell"`
}

type capabilitiesJSON struct {
	CPUCores     uint32  `json:"cpuCores"`
	MemoryGB     float64 `json:"memoryGB"`
	GPUAvailable bool    `json:"gpuAvailable"`
	GPUName      string  `json:"gpuName"`
	Runtime      string  `json:"runtime"`
}

func deviceView(d *wire.Device) deviceJSON {
	p, c := d.GetProfile(), d.GetProfile().GetCapabilities()
	labels := map[string]string{}
	maps.Copy(labels, p.GetLabels())
	return deviceJSON{
		ID: d.GetId(), Name: p.GetName(), Type: enum(p.GetType().String(), "DEVICE_TYPE_", false),
		Status: enum(d.GetStatus().String(), "DEVICE_STATUS_", false), Role: enum(d.GetRole().String(), "ROLE_", true),
		Labels:       labels,
		Capabilities: capabilitiesJSON{c.GetCpuCores(), c.GetMemoryGb(), c.GetGpuAvailable(), c.GetGpuName(), c.GetRuntime()},
		OpsScore:     p.GetOpsScore(), Weight: d.GetWeight(), TotalTasksCompleted: d.GetTotalTasksCompleted(),
		LastHeartbeat: stamp(d.GetLastHeartbeatMs()), Mode: modeName(d.GetMode()), InvitedBy: d.GetInvitedBy(), Version: p.GetVersion(),
		Unwell: d.GetUnwell(),
	}
}

// modeName is what an admin wants of a device, as the commands say it.
func modeName(m wire.DeviceMode) string {
	if m == wire.DeviceMode_DEVICE_MODE_UNSPECIFIED {
		m = wire.DeviceMode_DEVICE_MODE_ENABLED
	}
	return enum(m.String(), "DEVICE_MODE_", false)
}

type jobJSON struct {
	ID         string    `json:"id"`
	Program    string    `json:"program"`
	State      string    `json:"state"`
	Submitter  string    `json:"submitter"`
	Priority   int32     `json:"priority"`
	CreatedAt  string    `json:"createdAt"`
	EndedAt    string    `json:"endedAt"`
	Tasks      tasksJSON `json:"tasks"`
	WaitingFor string    `json:"waitingFor"`
	Error      string    `json:"error"`
}

type tasksJSON struct {
	Total     uint64 `json:"total"`
	Pending   uint64 `json:"pending"`
	Active    uint64 `json:"active"`
	Completed uint64 `json:"completed"`
	Failed    uint64 `json:"failed"`
}

func jobView(j *wire.Job) jobJSON {
	t := j.GetTasks()
	return jobJSON{
		ID: j.GetId(), Program: j.GetSpec().GetProgram().GetName(), State: enum(j.GetState().String(), "JOB_STATE_", false),
		Submitter: j.GetSubmitter(), Priority: j.GetSpec().GetPriority(),
		CreatedAt: stamp(j.GetCreatedAtMs()), EndedAt: stamp(j.GetEndedAtMs()),
		Tasks:      tasksJSON{t.GetTotal(), t.GetPending(), t.GetActive(), t.GetCompleted(), t.GetFailed()},
		WaitingFor: j.GetWaitingFor(), Error: j.GetError(),
	}
}

type inviteJSON struct {
	ID        string `json:"id"`
	Link      string `json:"link"`
	Code      string `json:"code"`
	Text      string `json:"text"`
	Role      string `json:"role"`
	Uses      uint32 `json:"uses"`
	MaxUses   uint32 `json:"maxUses"`
	CreatedAt string `json:"createdAt"`
	ExpiresAt string `json:"expiresAt"`
	CreatedBy string `json:"createdBy"`
	Revoked   bool   `json:"revoked"`
}

func inviteView(i *wire.Invite) inviteJSON {
	return inviteJSON{
		ID: i.GetId(), Link: i.GetLink(), Code: i.GetCode(), Text: i.GetText(), Role: enum(i.GetRole().String(), "ROLE_", true),
		Uses: i.GetUses(), MaxUses: i.GetMaxUses(), CreatedAt: stamp(i.GetCreatedAtMs()), ExpiresAt: stamp(i.GetExpiresAtMs()),
		CreatedBy: i.GetCreatedBy(), Revoked: i.GetRevoked(),
	}
}

type logJSON struct {
	Time    string `json:"time"`
	Level   string `json:"level"`
	Source  string `json:"source"`
	Device  string `json:"device"`
	Message string `json:"message"`
	Audit   bool   `json:"audit"`
}

func logView(l *wire.LogLine) logJSON {
	return logJSON{stamp(l.GetTimeMs()), l.GetLevel(), l.GetSource(), l.GetDevice(), l.GetMessage(), l.GetAudit()}
}

// resultHead and resultTail are the fields of a result around its output,
// which streams.
type resultHead struct {
	Index    uint32 `json:"index"`
	Status   string `json:"status"`
	ExitCode uint32 `json:"exitCode"`
}

type resultTail struct {
	Stderr     string `json:"stderr"`
	Device     string `json:"device"`
	Attempts   uint32 `json:"attempts"`
	DurationMS uint64 `json:"durationMs"`
	Number     uint32 `json:"number"`
	Error      string `json:"error"`
}

func resultView(r *wire.TaskResult) (resultHead, resultTail) {
	status := "failed"
	if r.GetStatus() == wire.TaskStatus_TASK_STATUS_OK {
		status = "ok"
	}
	return resultHead{r.GetIndex(), status, r.GetExitCode()}, resultTail{
		strings.ToValidUTF8(string(r.GetStderr()), "\ufffd"), r.GetDevice(), r.GetAttempts(),
		(r.GetDurationUs() + 500) / 1000, r.GetNumber(), r.GetError(),
	}
}

// enum returns the name of a value as people type it.
func enum(name, prefix string, lower bool) string {
	name = strings.TrimPrefix(name, prefix)
	if name == "UNSPECIFIED" {
		return ""
	}
	if lower {
		return strings.ToLower(name)
	}
	return name
}

// stamp returns a time in milliseconds as RFC 3339 in UTC; "" for 0.
func stamp(ms int64) string {
	if ms == 0 {
		return ""
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z07:00")
}

// list returns l, never nil.
func list(l []string) []string {
	if l == nil {
		return []string{}
	}
	return l
}

// views returns the views of a list, never nil.
func views[T, V any](all []T, view func(T) V) []V {
	out := make([]V, 0, len(all))
	for _, x := range all {
		out = append(out, view(x))
	}
	return out
}

// printJSON prints v, indented.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
