%% @doc One entry of the log as an event: when, how grave, what, of which generation, the facts.
%% Pure. baguette_log prints it as a line, baguette_events keeps it, baguette_story tells it.
%%
%% Our rooms log reports with `what' under the domain [baguette | _]; their facts are kept, texts
%% included (baguette_plain:fact/2). OTP's own reports may hold whatever a process had in its hands,
%% prompts and pictures too: of those only names, reasons and stacks are taken, and no text.
-module(baguette_event).

-export([from_log/1, address/1]).
-export_type([event/0]).

-type event() :: #{
    at_us := integer(), % system time
    level := logger:level(),
    what := atom() | binary(),
    room := atom(),
    facts := #{atom() | binary() => baguette_plain:plain()},
    generation => binary()
}.

-define(LIMITS, #{depth => 6, items => 32, text => 500}).

-spec from_log(logger:log_event()) -> event().
from_log(#{level := Level, msg := Message, meta := Meta}) ->
    {What, Facts} = told(Message, Meta),
    Event = #{
        at_us => maps:get(time, Meta, 0),
        level => Level,
        what => What,
        room => room(Meta),
        facts => maps:remove(generation, Facts)
    },
    case maps:get(generation, Meta, maps:get(generation, Facts, undefined)) of
        Id when is_binary(Id), byte_size(Id) =< 64 -> Event#{generation => Id};
        _ -> Event
    end.

room(#{domain := [baguette, Room | _]}) when is_atom(Room) -> Room;
room(#{domain := [baguette]}) -> face;
room(_) -> otp.

%% @doc A node by its address, any other name as it is.
-spec address(atom()) -> binary().
address(Name) ->
    Text = atom_to_binary(Name),
    case binary:split(Text, <<"@">>) of
        [<<"baguette">>, Address] -> Address;
        _ -> Text
    end.

%% --- what was told

told({report, #{what := What} = Report}, #{domain := [baguette | _]}) ->
    {name(What), baguette_plain:fact(maps:remove(what, Report), ?LIMITS)};
told({report, #{label := {error_logger, _}, format := Format, args := Args}}, _Meta) ->
    formatted(Format, Args);
told({report, #{label := Label} = Report}, _Meta) ->
    otp(Label, details(Report));
told({report, Report}, #{report_cb := Say}) when is_function(Say, 1) ->
    {Format, Args} = Say(Report),
    formatted(Format, Args);
told({report, _Report}, _Meta) ->
    {other_report, #{}};
told({string, String}, _Meta) ->
    {text, said(String)};
told({Format, Args}, _Meta) ->
    formatted(Format, Args).

name(What) when is_atom(What) -> What;
name(What) ->
    case baguette_plain:text(What, 100) of
        {ok, Text} -> Text;
        none -> other_report
    end.

%% Some reports are a list under `report', the crash of a process a list of two lists.
details(#{report := [Own | _]}) when is_list(Own) -> proplist(Own);
details(#{report := List}) when is_list(List) -> proplist(List);
details(Report) -> Report.

proplist([{Name, Value} | Rest]) -> (proplist(Rest))#{Name => Value};
proplist([_ | Rest]) -> proplist(Rest);
proplist(_) -> #{}.

otp({proc_lib, crash}, #{error_info := {Class, Reason, Stack}} = Info) ->
    Named = [{name, Name} || #{registered_name := Name} <- [Info], is_atom(Name)],
    Call = [{module, Module} || #{initial_call := {Module, _, _}} <- [Info]],
    Facts = crashed(Class, Reason, Stack),
    {process_crashed, maps:merge(Facts, maps:from_list(Named ++ Call))};
otp({supervisor, Context}, #{supervisor := Supervisor} = Info) ->
    Child = proplist(maps:get(offender, Info, [])),
    {supervisor_report,
        (reason(maps:get(reason, Info, undefined)))#{
            context => shape(Context),
            supervisor => shape(Supervisor),
            child => shape(maps:get(id, Child, maps:get(name, Child, undefined)))
        }};
otp({_Module, terminate}, #{reason := Reason} = Info) ->
    {process_ended, (reason(Reason))#{name => shape(maps:get(name, Info, undefined))}};
otp({application_controller, exit}, #{application := App, exited := Reason}) ->
    {application_ended, (reason(Reason))#{application => shape(App)}};
otp(Label, Info) ->
    Known = maps:with([name, id, handler, application, supervisor, module], Info),
    {otp_report, (maps:map(fun(_, Value) -> shape(Value) end, Known))#{label => shape(Label)}}.

crashed(Class, Reason, Stack) ->
    #{class => shape(Class), reason => shape(Reason), stack => baguette_plain:frames(Stack)}.

reason({Class, Reason, Stack}) when Class =:= error; Class =:= exit; Class =:= throw ->
    crashed(Class, Reason, Stack);
reason({Reason, [{_, _, _, _} | _] = Stack}) ->
    #{reason => shape(Reason), stack => baguette_plain:frames(Stack)};
reason(Reason) ->
    #{reason => shape(Reason)}.

shape(Term) -> baguette_plain:shape(Term).

%% The emulator's own words for a process that nothing caught.
formatted("Error in process" ++ _, [_ | _] = Args) ->
    {process_crashed, reason(lists:last(Args))};
formatted(Format, Args) ->
    try
        {text, said(io_lib:format(Format, [argument(A) || A <- Args], [{chars_limit, 500}]))}
    catch
        %% An argument without its text does not fit any more.
        error:badarg -> {text, said(Format)}
    end.

argument(Argument) when is_atom(Argument); is_number(Argument); is_pid(Argument) -> Argument;
argument(Argument) ->
    case baguette_plain:text(Argument, 200) of
        {ok, Text} -> Text;
        none -> shape(Argument)
    end.

said(Text) ->
    case baguette_plain:text(Text, 500) of
        {ok, Said} -> #{text => Said};
        none -> #{}
    end.
