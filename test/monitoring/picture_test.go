// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package monitoring_test

import (
	"fmt"
	"html"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// The picture of the dashboard in the documentation is drawn from what Prometheus
// answers, for Plutono, which would show it, cannot be had where the tests run.

const (
	pictureFile                = "../../docs/operations/dashboard.svg"
	pictureWidth, pictureInset = 1200, 12
	panelWidth, panelHeight    = 582, 232
	plotLeft, plotTop          = 70, 34
	plotWidth, plotHeight      = 498, 120
	legendHeight, legendLines  = 15, 4
)

// colors are for the lines of a panel.
var colors = []string{"#3778bf", "#d9542b", "#3f8f3f", "#8e5ea2", "#c29a1c", "#4aa3a3", "#7f7f7f", "#b03060"}

// line is one of a panel.
type line struct {
	legend string
	points []point
}

func drawDashboard(t *testing.T, watcher *prometheus, from, to time.Time) {
	t.Helper()
	g := NewWithT(t)
	all := panels(t)
	height := 40 + (len(all)+1)/2*(panelHeight+pictureInset)
	var out strings.Builder
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">`+"\n", pictureWidth, height)
	fmt.Fprintf(&out, `<rect width="100%%" height="100%%" fill="#f4f5f5"/><text x="%d" y="25" font-size="16">Registry Caches</text>`+"\n", pictureInset)
	for i, panel := range all {
		var lines []line
		for _, target := range panel.Targets {
			labels, values, err := watcher.queryRange(t.Context(), chosen(target.Expr), from, to, time.Second)
			g.Expect(err).NotTo(HaveOccurred())
			for j, points := range values {
				if len(points) == 0 {
					continue
				}
				lines = append(lines, line{legendLabel.ReplaceAllStringFunc(target.LegendFormat, func(label string) string {
					return labels[j][strings.Trim(label, "{}")]
				}), points})
			}
		}
		x, y := pictureInset+i%2*(panelWidth+pictureInset), 40+i/2*(panelHeight+pictureInset)
		fmt.Fprintf(&out, `<g transform="translate(%d,%d)">`, x, y)
		drawPanel(&out, panel, lines, float64(from.Unix()), float64(to.Unix()))
		out.WriteString("</g>\n")
	}
	out.WriteString("</svg>\n")
	g.Expect(os.WriteFile(pictureFile, []byte(out.String()), 0o600)).To(Succeed())
}

func drawPanel(out *strings.Builder, panel dashboardPanel, lines []line, from, to float64) {
	unit := panel.Yaxes[0].Format
	fmt.Fprintf(out, `<rect width="%d" height="%d" fill="#fff" stroke="#ddd"/><text x="10" y="20" font-weight="bold">%s</text>`+"\n",
		panelWidth, panelHeight, html.EscapeString(panel.Title))
	top := 0.0
	for _, line := range lines {
		for _, point := range line.points {
			top = math.Max(top, point.value)
		}
	}
	if top == 0 {
		top = 1
	}
	for i := range 3 {
		y := plotTop + plotHeight - i*plotHeight/2
		fmt.Fprintf(out, `<line x1="%d" x2="%d" y1="%d" y2="%d" stroke="#eee"/><text x="%d" y="%d" text-anchor="end" fill="#666">%s</text>`,
			plotLeft, plotLeft+plotWidth, y, y, plotLeft-6, y+4, format(top*float64(i)/2, unit))
	}
	fmt.Fprintf(out, `<text x="%d" y="%d" text-anchor="end" fill="#666">%.0f s</text>`+"\n", plotLeft+plotWidth, plotTop+plotHeight+14, to-from)
	for i, line := range lines {
		color := colors[i%len(colors)]
		var path strings.Builder
		for _, point := range line.points {
			fmt.Fprintf(&path, "%.1f,%.1f ", plotLeft+plotWidth*(point.at-from)/(to-from), plotTop+plotHeight*(1-point.value/top))
		}
		fmt.Fprintf(out, `<polyline fill="none" stroke="%s" stroke-width="1.5" points="%s"/>`+"\n", color, strings.TrimSpace(path.String()))
		x, y := 12+i/legendLines*(panelWidth/2), plotTop+plotHeight+28+i%legendLines*legendHeight
		fmt.Fprintf(out, `<rect x="%d" y="%d" width="10" height="3" fill="%s"/><text x="%d" y="%d">%s: %s</text>`+"\n", x, y-5, color, x+15, y,
			html.EscapeString(line.legend), format(line.points[len(line.points)-1].value, unit))
	}
}

// format writes a value as Plutono does, roughly.
func format(value float64, unit string) string {
	switch unit {
	case "percentunit":
		return fmt.Sprintf("%.0f %%", 100*value)
	case "bytes", "Bps":
		suffix := map[string]string{"bytes": "", "Bps": "/s"}[unit]
		for _, prefix := range []string{"", "Ki", "Mi", "Gi"} {
			if math.Abs(value) < 1024 {
				return fmt.Sprintf("%.3g %sB%s", value, prefix, suffix)
			}
			value /= 1024
		}
		return fmt.Sprintf("%.3g TiB%s", value, suffix)
	case "s":
		if value < 1 {
			return fmt.Sprintf("%.3g ms", 1000*value)
		}
		return fmt.Sprintf("%.4g s", value)
	case "reqps", "ops":
		return fmt.Sprintf("%.3g/s", value)
	default:
		return fmt.Sprintf("%.3g", value)
	}
}
