// Testbench of an exported NPU: runs one program and compares its outputs.
//
// Written for any simulator of Verilog-2005. Beside it lie what `celosia verilog --testbench` makes:
//   npu_tb.vh      sizes, as macros
//   memory.hex     system memory before the run, a bus word a line
//   registers.hex  register writes in order: byte address and value, 32 bits each
//   expected.hex   bytes of the outputs after the run: byte address, 32 bits, and value, 8 bits
//
// The last line that it prints begins with PASS or FAIL. It fails too if a control signal is x
// in any cycle after reset.
`timescale 1ns / 1ps
`include "npu_tb.vh"

module npu_tb;
  localparam BUS_BYTES = `NPU_BUS_BITS / 8;
  localparam RESET_CYCLES = 4;

  reg clk = 1'b0;
  reg rst = 1'b0;
  reg checks = 1'b0;  // reset is over
  reg ended = 1'b0;
  reg [31:0] cycles = 32'd0;

  wire irq;

  // Not driven before reset, as in a system that has just been switched on.
  reg csr_cyc, csr_stb, csr_we;
  reg [`NPU_CSR_ADR_BITS-1:0] csr_adr;
  reg [31:0] csr_dat_w;
  wire [31:0] csr_dat_r;
  wire csr_ack, csr_err, csr_stall;

  wire bus_cyc, bus_stb, bus_we;
  wire [`NPU_BUS_ADR_BITS-1:0] bus_adr;
  wire [`NPU_BUS_BITS-1:0] bus_dat_w;
  wire [BUS_BYTES-1:0] bus_sel;
  wire [2:0] bus_cti;
  wire [1:0] bus_bte;

  // System memory: takes a request a cycle and answers it NPU_LATENCY cycles later, in order.
  reg [`NPU_BUS_BITS-1:0] memory[0:`NPU_WORDS-1];
  reg [`NPU_LATENCY-1:0] answers;  // bit 0: given in this cycle
  reg [`NPU_LATENCY-1:0] errors;
  reg [`NPU_BUS_BITS-1:0] data[0:`NPU_LATENCY-1];
  wire exists = bus_adr < `NPU_WORDS;

  reg [63:0] registers[0:`NPU_WRITES-1];
  reg [39:0] expected[0:`NPU_EXPECTED-1];

  `NPU_MODULE npu (
      .clk(clk),
      .rst(rst),
      .irq(irq),
      .csr__cyc(csr_cyc),
      .csr__stb(csr_stb),
      .csr__we(csr_we),
      .csr__adr(csr_adr),
      .csr__sel(4'b1111),
      .csr__dat_w(csr_dat_w),
      .csr__dat_r(csr_dat_r),
      .csr__ack(csr_ack),
      .csr__err(csr_err),
      .csr__stall(csr_stall),
      .bus__cyc(bus_cyc),
      .bus__stb(bus_stb),
      .bus__we(bus_we),
      .bus__adr(bus_adr),
      .bus__sel(bus_sel),
      .bus__dat_w(bus_dat_w),
      .bus__dat_r(answers[0] ? data[0] : {`NPU_BUS_BITS{1'bx}}),
      .bus__ack(answers[0]),
      .bus__err(errors[0]),
      .bus__stall(1'b0),
      .bus__cti(bus_cti),
      .bus__bte(bus_bte),
      .trace__tags(),
      .trace__state()
  );

  always #5 clk = ~clk;

  integer stage, lane;
  always @(posedge clk) begin
    answers <= answers >> 1;
    errors <= errors >> 1;
    for (stage = 1; stage < `NPU_LATENCY; stage = stage + 1) data[stage-1] <= data[stage];
    answers[`NPU_LATENCY-1] <= bus_cyc & bus_stb & exists;
    errors[`NPU_LATENCY-1] <= bus_cyc & bus_stb & ~exists;
    data[`NPU_LATENCY-1] <= memory[bus_adr];
    if (bus_cyc & bus_stb & bus_we & exists)
      for (lane = 0; lane < BUS_BYTES; lane = lane + 1)
        if (bus_sel[lane]) memory[bus_adr][8*lane+:8] <= bus_dat_w[8*lane+:8];
    // Who lets cyc fall wants no more answers.
    if (rst || !bus_cyc) begin
      answers <= 0;
      errors <= 0;
    end
  end

  task fail(input [8*40-1:0] reason);
    if (!ended) begin
      ended = 1'b1;
      $display("FAIL: %0s, %0d cycles after reset", reason, cycles);
      $finish;
    end
  endtask

  // Verilog's x is what a real register has before it is written: it must not get out.
  reg [BUS_BYTES-1:0] unknown;
  always @(posedge clk)
    if (checks) begin
      cycles <= cycles + 32'd1;
      if (^irq === 1'bx) fail("irq is x");
      if (^{csr_ack, csr_err, csr_stall} === 1'bx) fail("an answer of the registers is x");
      if (csr_ack && ^csr_dat_r === 1'bx) fail("csr__dat_r is x");
      if (^{bus_cyc, bus_stb} === 1'bx) fail("bus__cyc or bus__stb is x");
      if (bus_cyc && bus_stb) begin
        if (^{bus_we, bus_adr, bus_sel, bus_cti, bus_bte} === 1'bx) fail("a bus request is x");
        for (lane = 0; lane < BUS_BYTES; lane = lane + 1)
          unknown[lane] = bus_we & bus_sel[lane] & (^bus_dat_w[8*lane+:8] === 1'bx);
        if (unknown != 0) fail("bus__dat_w is x");
      end
      if (cycles > `NPU_MOST_CYCLES) fail("no interrupt");
    end

  // One register access, in classic mode; the answer of a read is in csr_dat_r.
  reg [31:0] answer;
  task access(input write, input [31:0] address, input [31:0] value);
    begin
      csr_cyc <= 1'b1;
      csr_stb <= 1'b1;
      csr_we <= write;
      csr_adr <= address[`NPU_CSR_ADR_BITS+1:2];  // of words
      csr_dat_w <= value;
      @(posedge clk);
      while (!csr_ack && !ended) begin
        if (csr_err) fail("a register answers with err");
        @(posedge clk);
      end
      answer = csr_dat_r;
      csr_cyc <= 1'b0;
      csr_stb <= 1'b0;
      @(posedge clk);
    end
  endtask

  integer i, wrong;
  reg signed [7:0] found, wanted;
  initial begin
    $readmemh("memory.hex", memory);
    $readmemh("registers.hex", registers);
    $readmemh("expected.hex", expected);
    repeat (RESET_CYCLES) @(posedge clk);
    rst <= 1'b1;
    csr_cyc <= 1'b0;
    csr_stb <= 1'b0;
    repeat (RESET_CYCLES) @(posedge clk);
    rst <= 1'b0;
    @(posedge clk);
    checks <= 1'b1;
    access(1'b0, `NPU_CONFIG_HASH_ADDRESS, 0);
    if (answer !== `NPU_CONFIG_HASH) fail("the hash is that of another machine");
    for (i = 0; i < `NPU_WRITES; i = i + 1) access(1'b1, registers[i][63:32], registers[i][31:0]);
    while (irq !== 1'b1 && !ended) @(posedge clk);
    access(1'b0, `NPU_STATUS_ADDRESS, 0);
    if (answer !== `NPU_STATUS_DONE) fail("the program ended with an error");
    access(1'b0, `NPU_TOTAL_ADDRESS, 0);
    wrong = 0;
    for (i = 0; i < `NPU_EXPECTED; i = i + 1) begin
      found = memory[expected[i][39:8] / BUS_BYTES] >> (8 * (expected[i][39:8] % BUS_BYTES));
      wanted = expected[i][7:0];
      if (found !== wanted) wrong = wrong + 1;
      if (i < 64) $display("output %0d: %0d, expected %0d", i, found, wanted);
    end
    if (wrong != 0) fail("wrong outputs");
    if (!ended) begin
      ended = 1'b1;
      $display("PASS: %0d bytes of outputs, %0d cycles", `NPU_EXPECTED, answer);
      $finish;
    end
  end
endmodule
