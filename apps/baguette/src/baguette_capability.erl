%% @doc The node capability report: what this machine is, how fast it was measured to be, how far
%% its peers are, and what it holds, in a box. Pure: the facts of its own report in, Unicode text
%% out. Printed by `make join' when the node is READY and by baguette:report/0.
-module(baguette_capability).

-export([box/1]).

-export_type([facts/0]).

-define(NARROWEST, 40).
-define(WIDEST, 76).
-define(MAX_PEERS, 12).

%% Whatever is not known yet is absent: its line says so.
-type facts() :: #{
    hardware => map(),
    speed => map(),
    memory => map(),
    peers := [#{node := binary(), rtt_us := non_neg_integer(), atom() => term()}],
    holds := [unicode:chardata()],
    status := unicode:chardata()
}.

-spec box(facts()) -> unicode:chardata().
box(Facts) ->
    Rows = [title | lists:append(lists:join([rule], sections(Facts)))],
    Widest = lists:max([string:length(Text) || {text, Text} <- Rows]),
    Width = min(?WIDEST, max(?NARROWEST, Widest)),
    Edge = lists:duplicate(Width + 2, $─),
    [["┌", Edge, "┐\n"], [row(Row, Width) || Row <- Rows], ["└", Edge, "┘\n"]].

row(title, Width) ->
    Edge = lists:duplicate(Width + 2, $─),
    [line(string:pad("NODE CAPABILITY REPORT", Width, both), Width), "├", Edge, "┤\n"];
row(rule, Width) ->
    line(lists:duplicate(Width, $─), Width);
row({text, Text}, Width) ->
    line(Text, Width).

line(Text, Width) ->
    ["│ ", string:pad(string:slice(Text, 0, Width), Width), " │\n"].

sections(Facts) ->
    [call(Facts), gpu(Facts), cpu(Facts), peers(Facts), share(Facts)].

%% --- the main figure

call(#{speed := #{call_us := #{1 := One} = Calls}}) ->
    More = [
        io_lib:format("~b images ~ts ms", [N, ms(Us)])
     || {N, Us} <- lists:sort(maps:to_list(Calls)), N > 1
    ],
    [text(["Expert Call: ", ms(One), " ms", [[" (", lists:join(", ", More), ")"] || More =/= []]])];
call(#{speed := #{call_us := #{}}}) ->
    [text("Expert Call: not measured (no expert was loaded here)")];
call(_) ->
    [text("Expert Call: not measured yet")].

%% --- devices

gpu(#{hardware := #{gpu := Gpu, vram_mib := Vram}} = Facts) when is_binary(Gpu) ->
    [
        text(["GPU: ", Gpu]),
        text(["VRAM: ", gib(Vram)])
        | [text(["GPU Compute: ", tflops(G), " TFLOPS (BF16)"]) || {cuda, G} <- [matmul(Facts)]]
    ];
gpu(#{hardware := _}) ->
    [text("GPU: none, experts are computed on the CPU")];
gpu(_) ->
    [text("GPU: not looked at yet")].

cpu(#{hardware := #{cpu := Cpu, cores := Cores, ram_mib := Ram}} = Facts) ->
    [
        text(["CPU: ", Cpu, io_lib:format(" (~b cores)", [Cores])]),
        text(["RAM: ", gib(Ram)])
        | cpu_speed(Facts)
    ];
cpu(_) ->
    [text("CPU: not looked at yet")].

cpu_speed(#{speed := #{cpu_gflops := G, memory_mib_s := Memory}}) ->
    [
        text(["CPU Compute: ", tflops(G), " TFLOPS (FP32)"]),
        text(io_lib:format("Memory Bandwidth: ~.1f GB/s", [Memory / 953.674]))
    ];
cpu_speed(_) ->
    [text("CPU Compute: not measured yet")].

matmul(#{speed := #{device := <<"cuda">>, matmul_gflops := G}}) -> {cuda, G};
matmul(_) -> none.

%% --- the network

peers(#{peers := []}) ->
    [text("Network: no other node yet")];
peers(#{peers := Peers}) ->
    Shown = lists:sublist(Peers, ?MAX_PEERS),
    Hidden = length(Peers) - length(Shown),
    [text("Network Latency to Peers:")] ++
        [text(peer(P)) || P <- Shown] ++
        [text(io_lib:format("→ and ~b more", [Hidden])) || Hidden > 0] ++
        bandwidth([M || #{mbit := M} <- Peers, M > 0]).

peer(#{node := Node, rtt_us := Us} = Peer) ->
    Mbit = [io_lib:format(", ~b Mbps", [M]) || M <- [maps:get(mbit, Peer, 0)], M > 0],
    Path = [[", ", atom_to_list(P)] || P <- [maps:get(path, Peer, unknown)], P =/= unknown],
    ["→ ", Node, ": ", trip(Us), Mbit, Path].

trip(0) -> "not measured yet";
trip(Us) when Us < 9950 -> io_lib:format("~.1fms", [Us / 1000]);
trip(Us) -> io_lib:format("~bms", [(Us + 500) div 1000]).

%% The slowest link is what a picture waits for.
bandwidth([]) -> [];
bandwidth(Mbits) -> [text(io_lib:format("Network Bandwidth: ~b Mbps", [lists:min(Mbits)]))].

%% --- its share

share(#{holds := Holds, status := Status} = Facts) ->
    [text(["Assigned Expert: ", assigned(Holds)])] ++
        memory(Facts) ++
        [text(["Status: ", Status])].

assigned([]) -> "none";
assigned(Holds) -> lists:join(" ", Holds).

memory(#{memory := #{expert_peak_mib := Expert, pipeline_peak_mib := Pipeline}}) ->
    [
        text(io_lib:format("Peak Memory: ~b MiB expert + ~b MiB pipeline", [Expert, Pipeline]))
    ];
memory(_) ->
    [].

%% --- pieces

text(Text) -> {text, unicode:characters_to_list(Text)}.

ms(Us) when Us < 99950 -> io_lib:format("~.1f", [Us / 1000]);
ms(Us) -> integer_to_list((Us + 500) div 1000).

tflops(Gflops) when Gflops < 995 -> io_lib:format("~.2f", [Gflops / 1000]);
tflops(Gflops) when Gflops < 99500 -> io_lib:format("~.1f", [Gflops / 1000]);
tflops(Gflops) -> integer_to_list((Gflops + 500) div 1000).

gib(Mib) -> io_lib:format("~b GB", [(Mib + 512) div 1024]).
